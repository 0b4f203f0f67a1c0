//! Certificates, accounts and secrets of a throw-away system.

use std::{io, path::Path};

use rand::TryRng as _;
use sso_core::settings::write_private;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{DevelopmentError, revocation};
use crate::certificates::{AUTHORITY_CERTIFICATE, Authority, Request, Role, describe};

/// The domain of every account.
pub const DOMAIN: &str = "DEV";
/// Each profile, which is also the name of its account in [`DOMAIN`], with the group it is in.
pub const ACCOUNTS: [(&str, &str); 5] = [
    ("admin", r"DEV\SSO Administrators"),
    ("affiliate-admin", r"DEV\SSO Affiliate Administrators"),
    ("app-admin", r"DEV\Application Administrators"),
    ("user", r"DEV\Application Users"),
    ("host", r"DEV\Integration Hosts"),
];

const LIFETIME: Duration = Duration::days(90);
/// Certificates that end sooner than this are made again at a start.
const RENEWED_BEFORE: Duration = Duration::days(7);

/// Makes the authority with its revocation list and a certificate for every name, unless good ones are
/// there.
pub(super) fn prepare_certificates(
    folder: &Path,
    programs: &[(String, Role)],
    now: OffsetDateTime,
) -> Result<(), DevelopmentError> {
    let mut programs_and_authority = programs.iter().map(|(name, _)| name.as_str()).chain(["ca"]);
    if programs_and_authority.all(|name| is_good(folder, name, now))
        && profiles().all(|name| is_good(folder, name, now))
    {
        return revocation::prepare(folder, now);
    }
    let authority = match Authority::load(folder) {
        Ok(authority) if authority.not_after() > now + LIFETIME => authority,
        // None yet, or one that would end before what it is to issue now.
        Ok(_) | Err(_) => {
            let made = Authority::create("sso dev (throw-away)", 2 * LIFETIME, true, now)?;
            made.write(folder, true)?;
            made
        }
    };
    for (name, role) in programs {
        let mut request = Request::new(name, *role, LIFETIME);
        request.dns = vec!["localhost".into()];
        request.addresses = vec![[127, 0, 0, 1].into()];
        authority.issue(&request, now)?.write(folder, name, true)?;
    }
    for name in profiles() {
        let mut request = Request::new(name, Role::Client, LIFETIME);
        request.account = Some(format!(r"{DOMAIN}\{name}"));
        authority.issue(&request, now)?.write(folder, name, true)?;
    }
    revocation::prepare(folder, now)
}

/// The name of every profile.
pub(super) fn profiles() -> impl Iterator<Item = &'static str> {
    ACCOUNTS.iter().map(|(name, _)| *name)
}

/// There with its key, issued by the authority beside it, and valid for a while.
fn is_good(folder: &Path, name: &str, now: OffsetDateTime) -> bool {
    let key_there = folder.join(format!("{name}.key")).is_file();
    let authority = describe(&folder.join(AUTHORITY_CERTIFICATE));
    match (authority, describe(&folder.join(format!("{name}.crt")))) {
        (Ok(authority), Ok(certificate)) => {
            key_there
                && certificate.development
                && certificate.is_issued_by(&authority)
                && certificate.not_before <= now
                && certificate.not_after > now + RENEWED_BEFORE
        }
        _ => false,
    }
}

/// A file with a random passphrase in it, made once.
pub(super) fn prepare_passphrase(path: &Path) -> Result<(), DevelopmentError> {
    if path.exists() {
        return Ok(());
    }
    let mut random = Zeroizing::new([0_u8; 24]);
    rand::rngs::SysRng.try_fill_bytes(random.as_mut_slice()).map_err(|error| {
        DevelopmentError::System { what: "random numbers", source: io::Error::other(error) }
    })?;
    // Six words' worth of strength, typed by nobody.
    let mut text = Zeroizing::new(String::with_capacity(2 * random.len() + 1));
    for byte in random.iter() {
        text.push(hexadecimal(byte >> 4));
        text.push(hexadecimal(byte & 0x0f));
    }
    text.push('\n');
    // Expose: into a file that only its owner may read.
    write_private(path, text.as_bytes(), false).map_err(DevelopmentError::file(path))
}

fn hexadecimal(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0')
}

/// The groups of the accounts; made once, so that what was changed in it by hand stays.
pub(super) fn prepare_groups(path: &Path) -> Result<(), DevelopmentError> {
    if path.exists() {
        return Ok(());
    }
    let mut text = String::from(
        "# Who is in which group. Read again within seconds of a change.\nversion = 1\n\n[groups]\n",
    );
    for (name, group) in ACCOUNTS {
        text.push_str(&format!("'{group}' = ['{DOMAIN}\\{name}']\n"));
    }
    write_private(path, text.as_bytes(), true).map_err(DevelopmentError::file(path))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05 UTC);

    fn prepared(folder: &Path, now: OffsetDateTime) -> Vec<String> {
        let programs = [("sso-master".to_owned(), Role::Master), ("s".to_owned(), Role::Server)];
        prepare_certificates(folder, &programs, now).unwrap();
        let mut prints = Vec::new();
        for name in ["ca", "sso-master", "s"].into_iter().chain(profiles()) {
            let found = describe(&folder.join(format!("{name}.crt"))).unwrap();
            assert!(found.development, "{name}");
            prints.push(found.thumbprint_sha256);
        }
        prints
    }

    #[test]
    fn certificates_are_kept_until_they_near_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let first = prepared(folder.path(), NOW);
        assert_eq!(first.len(), 8);
        assert_eq!(prepared(folder.path(), NOW + Duration::days(80)), first);

        // What an earlier version made has no list.
        fs::remove_file(folder.path().join(revocation::LIST)).unwrap();
        assert_eq!(prepared(folder.path(), NOW + Duration::days(80)), first);
        assert!(folder.path().join(revocation::LIST).is_file());

        // The leaves are renewed under the same authority, which still has long enough to go …
        let renewed = prepared(folder.path(), NOW + Duration::days(84));
        assert_eq!(renewed[0], first[0]);
        assert!(renewed[1..].iter().zip(&first[1..]).all(|(new, old)| new != old));

        // … and everything once it has not.
        let again = prepared(folder.path(), NOW + Duration::days(168));
        assert!(again.iter().zip(&renewed).all(|(new, old)| new != old));
    }

    #[test]
    fn a_missing_key_or_a_foreign_certificate_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        prepared(folder.path(), NOW);
        fs::remove_file(folder.path().join("user.key")).unwrap();
        prepared(folder.path(), NOW);
        assert!(folder.path().join("user.key").exists());

        let other = tempfile::tempdir().unwrap();
        prepared(other.path(), NOW);
        fs::copy(other.path().join("user.crt"), folder.path().join("user.crt")).unwrap();
        assert!(!is_good(folder.path(), "user", NOW));
    }

    #[test]
    fn passphrases_are_private_random_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        prepare_passphrase(&one).unwrap();
        prepare_passphrase(&two).unwrap();
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&one).unwrap();
        assert_eq!(first.len(), 49);
        assert_ne!(first, fs::read(&two).unwrap());
        prepare_passphrase(&one).unwrap();
        assert_eq!(fs::read(&one).unwrap(), first);
    }
}
