//! A backup as far as it can be read without opening it: the reminder, and the envelopes of officers.
//! The file may come from anywhere, so nothing in it is believed; the master checks the rest.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    commands::read_file_of,
    failure::{Failure, file_name},
};

/// Bytes of the largest backup; the master takes no larger one.
const LARGEST: usize = 1024 * 1024;
const FORMAT: &str = "sso-backup";

/// A backup that was read.
#[derive(Debug)]
pub(super) struct Document {
    /// The whole file.
    pub(super) text: String,
    pub(super) reminder: String,
    /// Names the backup to its officers; none in version 1.
    pub(super) backup: Option<[u8; 16]>,
    pub(super) envelopes: Vec<Envelope>,
    /// How many shares are needed, where there are any.
    pub(super) shares_needed: Option<u64>,
    pub(super) has_password: bool,
}

/// The backup key for one officer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) officer: String,
    pub(super) public_key: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

#[derive(Deserialize)]
struct File {
    header: Header,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    reminder: String,
    backup: Option<String>,
    locks: Option<Vec<Lock>>,
}

#[derive(Deserialize)]
struct Lock {
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    public_key: String,
    #[serde(default)]
    envelope: String,
    needed: Option<u64>,
}

impl Document {
    /// The backup in a file.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let bytes = read_file_of(file, LARGEST)?;
        Self::parse(&bytes)
            .map_err(|message| Failure::File { file: file_name(file), message: message.to_owned() })
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        const DAMAGED: &str = "is a damaged backup: use another copy of the file";
        const OTHER: &str = "is no backup of the master secret";
        if bytes.len() > LARGEST {
            return Err(OTHER);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| OTHER)?;
        // Cut off, it is no JSON any more.
        let broken = || if text.contains(FORMAT) { DAMAGED } else { OTHER };
        let marked = serde_json::from_str::<Marked>(text).map_err(|_| broken())?;
        if marked.format != FORMAT {
            return Err(OTHER);
        }
        if !(1..=2).contains(&marked.version) {
            return Err("is a backup of a later version: use a newer sso");
        }
        let file: File = serde_json::from_str(text).map_err(|_| DAMAGED)?;
        let locks = file.header.locks.unwrap_or_default();
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| DAMAGED);
        let mut envelopes = Vec::new();
        for lock in locks.iter().filter(|lock| lock.kind == "officer") {
            envelopes.push(Envelope {
                officer: lock.name.clone(),
                public_key: decode(&lock.public_key)?,
                sealed: decode(&lock.envelope)?,
            });
        }
        Ok(Self {
            text: text.to_owned(),
            reminder: file.header.reminder,
            backup: file.header.backup.as_deref().map(|id| uuid(id).ok_or(DAMAGED)).transpose()?,
            envelopes,
            shares_needed: locks
                .iter()
                .find(|lock| lock.kind == "shares")
                .and_then(|lock| lock.needed),
            has_password: marked.version == 1 || locks.iter().any(|lock| lock.kind == "password"),
        })
    }
}

#[derive(Deserialize)]
struct Marked {
    format: String,
    version: u64,
}

/// The bytes of a UUID as text.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    if digits.len() != 32 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) const V1: &str = r#"{"format":"sso-backup","version":1,"header":{
        "keystore":"00000000-0000-0000-0000-000000000007","created":"2030-01-02T03:04:05Z",
        "tool":"sso-master 0.1.0","reminder":"which animal?","active":2,"generations":[],
        "work":{},"salt":"AAAA"},"sealed":"AAAA","checksum":"x"}"#;
    const V2: &str = r#"{"format":"sso-backup","version":2,"header":{
        "backup":"00000000-0000-0000-0000-000000000009","reminder":"r","epoch":3,"locks":[
        {"kind":"password","work":{},"salt":"","wrapped":""},
        {"kind":"officer","name":"Ada","public_key":"BwcH","envelope":"CQkJ"},
        {"kind":"shares","needed":3,"total":5}]},"sealed":"","checksum":""}"#;

    #[test]
    fn both_versions_give_what_stands_in_the_clear() {
        let first = Document::parse(V1.as_bytes()).unwrap();
        assert_eq!((first.reminder.as_str(), first.has_password), ("which animal?", true));
        assert_eq!((first.backup, first.envelopes.len()), (None, 0));
        let second = Document::parse(V2.as_bytes()).unwrap();
        assert_eq!(second.backup, Some(9_u128.to_be_bytes()));
        let envelope =
            Envelope { officer: "Ada".into(), public_key: vec![7, 7, 7], sealed: vec![9, 9, 9] };
        assert_eq!(second.envelopes, [envelope]);
        assert_eq!((second.shares_needed, second.has_password), (Some(3), true));
    }

    #[test]
    fn what_is_no_backup_is_told_apart() {
        for (text, why) in [
            ("", "no backup"),
            ("[]", "no backup"),
            ("\u{1}\u{2}", "no backup"),
            (r#"{"format":"sso-keystore","version":1}"#, "no backup"),
            (r#"{"format":"sso-backup","version":1}"#, "damaged"),
            (r#"{"format":"sso-backup","version":9,"header":{}}"#, "later version"),
            (&V2.replace("-000000000009", "-9"), "damaged"),
            (&V2.replace("00000009", "0000000+"), "damaged"),
            (&V2.replace("CQkJ", "%%%"), "damaged"),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Document::parse(&[0xFF, 0xFE]).is_err());
        assert!(Document::parse(&vec![b' '; LARGEST + 1]).is_err());
        let deep = "[".repeat(100_000);
        assert!(Document::parse(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(at in 0..V2.len(), with in any::<u8>(), cut in 0..V2.len()) {
            let mut bytes = V2.as_bytes().to_vec();
            bytes[at] = with;
            let _ = Document::parse(&bytes);
            let _ = Document::parse(&bytes[..cut]);
        }
    }
}
