//! What an authority issued and revoked: files in its folder, for which its key is not needed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Bundle, CertificateError, Description, EarlierList, RevocationReason, Revoked,
    authority::authority_certificate,
    content_error,
    files::{self, file_error, make_folder, write_public},
    pem,
};

/// The certificates that were issued, one file each, named by its serial number.
const ISSUED: &str = "issued";
/// What was revoked, and the number of the last revocation list.
const REVOKED: &str = "revoked.json";
/// The beginning of a serial number or thumbprint has at least so many digits.
const FEWEST_DIGITS: usize = 8;

/// The book of an authority.
#[derive(Clone, Debug)]
pub struct Ledger {
    folder: PathBuf,
}

/// What [`Ledger::revoke`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is in the book now; the next list names it.
    Done(Revoked),
    /// It was there before, and nothing was changed.
    Before(Revoked),
}

/// What is in the folder of the issued certificates.
#[derive(Default)]
struct Issued {
    readable: Vec<Description>,
    /// Name of the file without its ending, and what is wrong with it.
    damaged: Vec<(String, CertificateError)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    version: u32,
    /// The number of the last list.
    list_number: u64,
    revoked: Vec<Revoked>,
}

impl Default for Book {
    fn default() -> Self {
        Self { version: 1, list_number: 0, revoked: Vec::new() }
    }
}

impl Ledger {
    /// The book in the folder of an authority. Nothing is read yet.
    #[must_use]
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Keeps a copy of a certificate before it is handed out, so that it can be found by its number.
    /// Takes the first certificate of a PEM text.
    ///
    /// # Errors
    /// The folder cannot be written; the certificate cannot be read.
    pub fn record(&self, certificate: &str) -> Result<PathBuf, CertificateError> {
        let issued = self.folder.join(ISSUED);
        let sections = pem::sections(certificate.as_bytes()).map_err(CertificateError::Request)?;
        let first = sections.first().map(|it| it.content.as_slice()).unwrap_or_default();
        let der = CertificateDer::from(first);
        let description = Description::read(&der).map_err(CertificateError::Request)?;
        make_folder(&issued)?;
        let path = issued.join(format!("{}.crt", description.serial));
        write_public(&path, pem::encode("CERTIFICATE", &der).as_bytes(), false)?;
        Ok(path)
    }

    /// The files among the issued certificates that cannot be read, each with what is wrong with it.
    /// They keep nobody from finding the others.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn damaged(&self) -> Result<Vec<CertificateError>, CertificateError> {
        Ok(self.issued()?.damaged.into_iter().map(|(_, error)| error).collect())
    }

    /// The issued certificate that a serial number or a thumbprint (SHA-1 or SHA-256) names, or at least
    /// eight digits of its beginning; `:` and spaces do not count, nor does case.
    ///
    /// # Errors
    /// [`CertificateError::NotFound`], [`CertificateError::Ambiguous`]; fewer digits, or none at all;
    /// the file of the certificate is damaged, or that of one that may be meant.
    pub fn find(&self, wanted: &str) -> Result<Description, CertificateError> {
        let digits: String = wanted
            .chars()
            .filter(|character| !matches!(character, ':' | ' '))
            .map(|character| character.to_ascii_lowercase())
            .collect();
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hexadecimal || digits.len() < FEWEST_DIGITS {
            return Err(CertificateError::Request(format!(
                "{wanted:?} is no file and no serial number or thumbprint: those have at least \
                 {FEWEST_DIGITS} hexadecimal digits"
            )));
        }
        let Issued { readable: mut found, damaged } = self.issued()?;
        let serial = plain_serial(&digits);
        // All digits of a serial number are no mere beginning of another one.
        if let Some(at) = found.iter().position(|it| plain_serial(&it.serial) == serial) {
            return Ok(found.swap_remove(at));
        }
        found.retain(|it| {
            [&it.serial, &it.thumbprint_sha1, &it.thumbprint_sha256]
                .iter()
                .any(|text| text.starts_with(&digits))
        });
        // Its file is named by its serial number, so that it is known which one is damaged.
        let damaged_one = damaged.into_iter().find(|(stem, _)| {
            found.is_empty() || stem.starts_with(&digits) || plain_serial(stem) == serial
        });
        if let Some((_, error)) = damaged_one {
            return Err(CertificateError::Request(format!(
                "{error}; it may be what {wanted} names: give a file with that certificate in its place"
            )));
        }
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => Err(CertificateError::NotFound {
                wanted: wanted.to_owned(),
                looked_in: self.folder.join(ISSUED),
            }),
            (Some(last), false) => {
                let serials = found.into_iter().chain([last]).map(|it| it.serial).collect();
                Err(CertificateError::Ambiguous { wanted: wanted.to_owned(), found: serials })
            }
        }
    }

    /// The certificate in a file, if this authority issued it: by name and signature, whether or not
    /// the book has it.
    ///
    /// # Errors
    /// [`CertificateError::OtherAuthority`]; it is the certificate of the authority itself.
    pub fn read(&self, file: &Path) -> Result<Description, CertificateError> {
        let bundle = Bundle::read(file, None)?;
        let der = bundle
            .certificates
            .first()
            .ok_or_else(|| content_error(file, &"holds no certificate"))?;
        let description = Description::read(der).map_err(|what| content_error(file, &what))?;
        let (authority_der, authority) = authority_certificate(&self.folder)?;
        if description.thumbprint_sha256 == authority.thumbprint_sha256 {
            let text = match description.is_self_issued() {
                true => "a root cannot revoke itself: take it out of the ca files that trust it",
                false => "an authority is revoked by the one above it",
            };
            return Err(CertificateError::Request(text.into()));
        }
        if !description.is_issued_by(&authority) || !is_signed_by(der, &authority_der) {
            let (subject, issuer) = (description.subject, description.issuer);
            return Err(CertificateError::OtherAuthority { subject, issuer });
        }
        Ok(description)
    }

    /// Writes a certificate down as revoked. Nobody is told: the next revocation list does that.
    ///
    /// # Errors
    /// The book cannot be read or written.
    pub fn revoke(
        &self,
        certificate: &Description,
        reason: RevocationReason,
        now: OffsetDateTime,
    ) -> Result<Revocation, CertificateError> {
        let _lock = self.lock()?;
        let mut book = self.load()?;
        let serial = plain_serial(&certificate.serial).to_owned();
        if let Some(before) = book.revoked.iter().find(|it| it.serial == serial) {
            return Ok(Revocation::Before(before.clone()));
        }
        let time = now.replace_nanosecond(0).unwrap_or(now);
        let revoked = Revoked { serial, time, reason, name: certificate.subject.clone() };
        book.revoked.push(revoked.clone());
        self.save(&book)?;
        Ok(Revocation::Done(revoked))
    }

    /// The number of the next list, which is used up by this, and what the list has to name. What an
    /// earlier list names is never forgotten, whoever made that: the book takes it over.
    ///
    /// # Errors
    /// The book cannot be read or written.
    pub fn next_list(
        &self,
        earlier: Option<&EarlierList>,
    ) -> Result<(u64, Vec<Revoked>), CertificateError> {
        let _lock = self.lock()?;
        let mut book = self.load()?;
        for revoked in earlier.iter().flat_map(|list| &list.revoked) {
            if !book.revoked.iter().any(|it| it.serial == revoked.serial) {
                book.revoked.push(revoked.clone());
            }
        }
        let last = earlier.map_or(0, |list| list.number).max(book.list_number);
        book.list_number = last.saturating_add(1);
        self.save(&book)?;
        Ok((book.list_number, book.revoked))
    }

    fn issued(&self) -> Result<Issued, CertificateError> {
        let folder = self.folder.join(ISSUED);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Issued::default());
            }
            Err(error) => return Err(file_error(&folder, error)),
        };
        let mut issued = Issued::default();
        for entry in entries {
            let path = entry.map_err(|error| file_error(&folder, error))?.path();
            if path.extension().is_none_or(|it| it != "crt") {
                continue;
            }
            match super::describe(&path) {
                Ok(description) => issued.readable.push(description),
                Err(error) => {
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                    issued.damaged.push((stem.to_ascii_lowercase(), error));
                }
            }
        }
        issued.readable.sort_by(|one, other| one.serial.cmp(&other.serial));
        issued.damaged.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(issued)
    }

    /// Keeps other commands out until it is dropped.
    fn lock(&self) -> Result<File, CertificateError> {
        let unusable = |error| file_error(&self.folder, error);
        let folder = File::open(&self.folder).map_err(unusable)?;
        folder.lock().map_err(unusable)?;
        Ok(folder)
    }

    fn load(&self) -> Result<Book, CertificateError> {
        let path = self.folder.join(REVOKED);
        // A book that is there and cannot be read is not an empty one: nothing in it may be forgotten.
        match path.symlink_metadata() {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Book::default());
            }
            Err(error) => return Err(file_error(&path, error)),
        }
        let book: Book = serde_json::from_slice(&files::read(&path)?)
            .map_err(|error| content_error(&path, &format!("cannot be understood: {error}")))?;
        match book.version {
            1 => Ok(book),
            version => Err(content_error(&path, &format!("has the unknown version {version}"))),
        }
    }

    fn save(&self, book: &Book) -> Result<(), CertificateError> {
        let path = self.folder.join(REVOKED);
        let text = serde_json::to_string_pretty(book)
            .map_err(|error| content_error(&path, &format!("cannot be written: {error}")))?;
        write_public(&path, format!("{text}\n").as_bytes(), true)
    }
}

/// A serial number without zeros in front, as lists compare it.
fn plain_serial(digits: &str) -> &str {
    match digits.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    }
}

fn is_signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    match (X509Certificate::from_der(certificate), X509Certificate::from_der(authority)) {
        (Ok((_, one)), Ok((_, authority))) => {
            one.verify_signature(Some(authority.public_key())).is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;
    use crate::certificates::{Authority, KeyType, Request, Role};

    const NOW: OffsetDateTime = datetime!(2030-01-02 03:04:05.678 UTC);

    fn authority(folder: &Path) -> Authority {
        let authority = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        authority.write(folder, false).unwrap();
        authority
    }

    fn issue(authority: &Authority, name: &str, ledger: &Ledger) -> Description {
        let request = Request::new(name, Role::Client, Duration::days(30));
        let issued = authority.issue(&request, NOW).unwrap();
        let path = ledger.record(&issued.certificate).unwrap();
        super::super::describe(&path).unwrap()
    }

    #[test]
    fn certificates_are_found_by_number_and_thumbprint() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(folder.path());
        let authority = authority(folder.path());
        let one = issue(&authority, "one", &ledger);
        issue(&authority, "two", &ledger);
        let colons: Vec<_> = one.thumbprint_sha1.as_bytes().chunks(2).collect();
        let colons: Vec<_> = colons.iter().map(|it| String::from_utf8_lossy(it)).collect();
        for wanted in [
            one.serial.clone(),
            format!("00{}", one.serial.to_uppercase()),
            one.serial[..12].to_owned(),
            one.thumbprint_sha256.clone(),
            colons.join(":").to_uppercase(),
        ] {
            assert_eq!(ledger.find(&wanted).unwrap().subject, "CN=one", "{wanted}");
        }
        let unknown = ledger.find("0123456789abcdef").unwrap_err();
        assert!(matches!(unknown, CertificateError::NotFound { .. }), "{unknown}");
        for bad in ["", "1234567", "one", "x.crt"] {
            let error = ledger.find(bad).unwrap_err();
            assert!(matches!(error, CertificateError::Request(_)), "{bad}: {error}");
        }
        // Nothing was issued yet: nothing is found.
        let empty = Ledger::of(folder.path().join("none")).find(&one.serial).unwrap_err();
        assert!(matches!(empty, CertificateError::NotFound { .. }), "{empty}");
    }

    #[test]
    fn a_beginning_that_several_have_is_ambiguous() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(folder.path());
        let key = rcgen::KeyPair::generate().unwrap();
        for last in [1_u8, 2] {
            let mut params = rcgen::CertificateParams::default();
            params.serial_number =
                Some(rcgen::SerialNumber::from(vec![0x5e, 0x8c, 0x0d, 0x6a, last]));
            ledger.record(&params.self_signed(&key).unwrap().pem()).unwrap();
        }
        let error = ledger.find("5e8c0d6a").unwrap_err();
        let CertificateError::Ambiguous { found, .. } = &error else { panic!("{error}") };
        assert_eq!(found, &["5e8c0d6a01", "5e8c0d6a02"]);
        assert_eq!(ledger.find("5e8c0d6a02").unwrap().serial, "5e8c0d6a02");
    }

    #[test]
    fn revoked_once_and_numbers_that_only_rise() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(folder.path());
        let authority = authority(folder.path());
        let one = issue(&authority, "one", &ledger);
        assert_eq!(ledger.next_list(None).unwrap(), (1, Vec::new()));
        let done = ledger.revoke(&one, RevocationReason::Superseded, NOW).unwrap();
        let Revocation::Done(revoked) = done else { panic!("{done:?}") };
        assert_eq!((revoked.name.as_str(), revoked.time.nanosecond()), ("CN=one", 0));
        let again = ledger.revoke(&one, RevocationReason::KeyCompromise, NOW).unwrap();
        assert_eq!(again, Revocation::Before(revoked.clone()));
        assert_eq!(ledger.next_list(None).unwrap(), (2, vec![revoked.clone()]));

        // Somebody else's list of the same authority: its number and its entries are not forgotten.
        let mut foreign = revoked.clone();
        foreign.serial = "0b".into();
        foreign.name.clear();
        let earlier = EarlierList { number: 40, revoked: vec![foreign.clone(), revoked.clone()] };
        let (number, all) = ledger.next_list(Some(&earlier)).unwrap();
        assert_eq!((number, all), (41, vec![revoked, foreign]));

        fs::write(folder.path().join(REVOKED), "{\"version\": 2}").unwrap();
        assert!(matches!(ledger.next_list(None), Err(CertificateError::Content { .. })));
        fs::write(folder.path().join(REVOKED), "nonsense").unwrap();
        assert!(ledger.revoke(&one, RevocationReason::Unspecified, NOW).is_err());
    }

    #[test]
    fn a_damaged_file_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(folder.path());
        let authority = authority(folder.path());
        let one = issue(&authority, "one", &ledger);
        let two = issue(&authority, "two", &ledger);
        assert!(ledger.damaged().unwrap().is_empty());
        let file = |of: &Description| folder.path().join(ISSUED).join(format!("{}.crt", of.serial));
        fs::write(file(&two), "half a certi").unwrap();
        assert_eq!(ledger.find(&one.serial).unwrap().subject, "CN=one");
        assert_eq!(ledger.find(&one.thumbprint_sha256).unwrap().subject, "CN=one");
        assert_eq!(ledger.damaged().unwrap().len(), 1);
        // The damaged one, by its number, and by a thumbprint that may be its own.
        for wanted in [&two.serial, &two.serial[..12], &two.thumbprint_sha1] {
            let error = ledger.find(wanted).unwrap_err();
            assert!(error.to_string().contains(&two.serial), "{wanted}: {error}");
        }
    }

    #[test]
    fn a_book_that_cannot_be_read_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(folder.path());
        let authority = authority(folder.path());
        let one = issue(&authority, "one", &ledger);
        let book = folder.path().join(REVOKED);
        // A link to a disk that is not there now, and something that no file is.
        std::os::unix::fs::symlink(folder.path().join("away"), &book).unwrap();
        let refused = || {
            assert!(ledger.revoke(&one, RevocationReason::Unspecified, NOW).is_err());
            assert!(ledger.next_list(None).is_err());
        };
        refused();
        fs::remove_file(&book).unwrap();
        fs::create_dir(&book).unwrap();
        refused();
    }

    #[test]
    fn only_what_the_authority_issued_is_taken_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(folder.path());
        let own = authority(folder.path());
        // Issued before there was a book.
        let request = Request::new("early", Role::Client, Duration::days(30));
        let (file, _) = own.issue(&request, NOW).unwrap().write(folder.path(), "e", false).unwrap();
        assert_eq!(ledger.read(&file).unwrap().subject, "CN=early");

        // A namesake of the authority.
        let other = Authority::create("Root", Duration::days(3650), false, NOW).unwrap();
        let (file, _) =
            other.issue(&request, NOW).unwrap().write(folder.path(), "f", false).unwrap();
        let error = ledger.read(&file).unwrap_err();
        assert!(matches!(error, CertificateError::OtherAuthority { .. }), "{error}");
        let itself = ledger.read(&folder.path().join("ca.crt")).unwrap_err();
        assert!(itself.to_string().contains("cannot revoke itself"), "{itself}");
        let below =
            own.create_intermediate("Below", KeyType::P256, Duration::days(90), NOW).unwrap();
        let below_folder = folder.path().join("below");
        below.write(&below_folder, false).unwrap();
        assert_eq!(ledger.read(&below_folder.join("ca.crt")).unwrap().subject, "CN=Below");
        let itself = Ledger::of(&below_folder).read(&below_folder.join("ca.crt")).unwrap_err();
        assert!(itself.to_string().contains("the one above it"), "{itself}");
    }
}
