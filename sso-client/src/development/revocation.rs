//! The revocation list of a throw-away authority, so that its programs check revocation as real ones do.

use std::{fs, path::Path};

use time::{Duration, OffsetDateTime};
use x509_parser::{
    pem::parse_x509_pem, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use super::DevelopmentError;
use crate::certificates::{AUTHORITY_CERTIFICATE, Authority, RevocationReason, Revoked};

/// The list of the authority beside it.
pub(super) const LIST: &str = "ca.crl";
/// A list that ends sooner than this is made again at a start.
const RENEWED_BEFORE: Duration = Duration::days(1);

/// Makes a list of the authority in the folder that lasts as long as that, unless a good one is there.
/// What an earlier list of the same authority revoked stays revoked.
pub(super) fn prepare(folder: &Path, now: OffsetDateTime) -> Result<(), DevelopmentError> {
    let path = folder.join(LIST);
    let earlier = Earlier::read(&path, &folder.join(AUTHORITY_CERTIFICATE));
    if earlier.as_ref().is_some_and(|list| list.next_update > now + RENEWED_BEFORE) {
        return Ok(());
    }
    let authority = Authority::load(folder)?;
    let (number, revoked) = earlier.map_or((0, Vec::new()), |list| (list.number, list.revoked));
    let lifetime = authority.not_after() - now;
    let list = authority.revocation_list(number.saturating_add(1), &revoked, lifetime, now)?;
    Ok(list.write(&path)?)
}

/// A list that the authority signed.
struct Earlier {
    number: u64,
    next_update: OffsetDateTime,
    revoked: Vec<Revoked>,
}

impl Earlier {
    /// `None`: there is none, it is damaged, or another authority signed it.
    fn read(path: &Path, authority: &Path) -> Option<Self> {
        let authority = fs::read(authority).ok()?;
        let (_, authority) = parse_x509_pem(&authority).ok()?;
        let authority = authority.parse_x509().ok()?;
        let list = fs::read(path).ok()?;
        let (_, list) = parse_x509_pem(&list).ok()?;
        let (_, list) = CertificateRevocationList::from_der(&list.contents).ok()?;
        list.verify_signature(authority.public_key()).ok()?;
        let number = list.crl_number().map(|number| number.to_u64_digits()).unwrap_or_default();
        Some(Self {
            number: number.first().copied().unwrap_or_default(),
            next_update: list.next_update()?.to_datetime(),
            revoked: list
                .iter_revoked_certificates()
                .map(|entry| Revoked {
                    serial: entry.serial().to_str_radix(16),
                    time: entry.revocation_date.to_datetime(),
                    reason: RevocationReason::default(),
                    name: String::new(),
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    fn authority(folder: &Path) -> Authority {
        let authority = Authority::create("Test CA", Duration::days(100), true, NOW).unwrap();
        authority.write(folder, true).unwrap();
        authority
    }

    fn earlier(folder: &Path) -> Earlier {
        Earlier::read(&folder.join(LIST), &folder.join(AUTHORITY_CERTIFICATE)).unwrap()
    }

    #[test]
    fn a_list_lasts_as_long_as_its_authority_and_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        authority(folder.path());
        prepare(folder.path(), NOW).unwrap();
        let first = fs::read(folder.path().join(LIST)).unwrap();
        let list = earlier(folder.path());
        assert_eq!((list.number, list.revoked.len()), (1, 0));
        assert_eq!(list.next_update, NOW + Duration::days(100));
        prepare(folder.path(), NOW + Duration::days(98)).unwrap();
        assert_eq!(fs::read(folder.path().join(LIST)).unwrap(), first);
        // Another authority has nothing to do with it.
        authority(folder.path());
        prepare(folder.path(), NOW).unwrap();
        assert_ne!(fs::read(folder.path().join(LIST)).unwrap(), first);
        assert_eq!(earlier(folder.path()).number, 1);
    }

    #[test]
    fn what_was_revoked_stays_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path());
        let revoked = Revoked {
            serial: "4a01".into(),
            time: NOW,
            reason: RevocationReason::KeyCompromise,
            name: "CN=x".into(),
        };
        let list = authority.revocation_list(7, &[revoked], Duration::hours(1), NOW).unwrap();
        list.write(&folder.path().join(LIST)).unwrap();
        prepare(folder.path(), NOW).unwrap();
        let list = earlier(folder.path());
        assert_eq!((list.number, list.revoked.len()), (8, 1));
        assert_eq!(list.revoked[0].serial, "4a01");
    }

    #[test]
    fn a_damaged_list_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        authority(folder.path());
        fs::write(folder.path().join(LIST), "no list").unwrap();
        prepare(folder.path(), NOW).unwrap();
        assert_eq!(earlier(folder.path()).number, 1);
    }
}
