//! How a backup is opened: a password, enough shares, or the private key of an officer, which is used
//! here and sent nowhere.

use std::path::Path;

use sso_client::{SecretText, secret::Opener};
use sso_core::{memory::LockedKey, officer, settings::secret_file};

use super::{args::OpenerArgs, document::Document, locks::read_password};
use crate::{
    failure::{Failure, file_name},
    output::Output,
    values::{ask, read_secret},
};

impl OpenerArgs {
    /// What opens the backup; asks for the password where nothing is named.
    pub(super) fn read(&self, document: &Document, output: &Output) -> Result<Opener, Failure> {
        if let Some(file) = &self.officer_key {
            return Ok(Opener::BackupKey(open_as_officer(document, &read_private(file)?)?));
        }
        if !self.shares.is_empty() {
            let shares = self.shares.iter().map(|file| read_share(file));
            return Ok(Opener::Shares(shares.collect::<Result<_, _>>()?));
        }
        if let Some(file) = &self.password_file {
            return read_password(file).map(Opener::Password);
        }
        if !document.has_password {
            return Err(Failure::usage_hint("the backup has no password", ways(document)));
        }
        if !document.reminder.is_empty() {
            output.note(&format!("reminder: {}", document.reminder));
        }
        let hint = "--password-file FILE names a private file with it";
        Ok(Opener::Password(ask("Password of the backup", false, hint)?))
    }
}

/// What opens a backup without a password.
fn ways(document: &Document) -> String {
    let mut ways = Vec::new();
    let names: Vec<_> = document.envelopes.iter().map(|it| it.officer.as_str()).collect();
    if !names.is_empty() {
        ways.push(format!("--officer-key FILE, of {}", names.join(" or ")));
    }
    if let Some(needed) = document.shares_needed {
        ways.push(format!("--share FILE, {needed} times"));
    }
    ways.join("; ")
}

/// One share; what stands around it in the file does not belong to it.
pub(super) fn read_share(file: &Path) -> Result<SecretText, Failure> {
    read_secret(file, "a share of the backup")
}

fn read_private(file: &Path) -> Result<LockedKey, Failure> {
    let bytes = secret_file(file).map_err(|error| Failure::Settings(error.to_string()))?;
    let malformed = |message: String| Failure::File { file: file_name(file), message };
    let text = SecretText::from_utf8(&bytes).map_err(|_| malformed("is not text".to_owned()))?;
    officer::parse_private(&text).map_err(|error| malformed(error.to_string()))
}

/// The backup key in the envelope that is for this private key.
fn open_as_officer(document: &Document, private: &LockedKey) -> Result<LockedKey, Failure> {
    let unusable = |error: officer::OfficerError| Failure::Settings(error.to_string());
    let public = officer::public_key(private).map_err(unusable)?;
    let envelope = document.envelopes.iter().find(|it| it.public_key == public);
    let (Some(envelope), Some(backup)) = (envelope, &document.backup) else {
        let names: Vec<_> = document.envelopes.iter().map(|it| it.officer.as_str()).collect();
        let hint = match names.as_slice() {
            [] => "it has no officers: use its password or its shares".to_owned(),
            names => format!("its officers are {}", names.join(", ")),
        };
        return Err(Failure::refused("the backup is not for the officer with this key", hint));
    };
    officer::open_envelope(private, backup, &envelope.sealed).map_err(|error| {
        Failure::refused(error.to_string(), "the file may be damaged: use another copy of it")
    })
}

#[cfg(test)]
mod tests {
    use sso_core::transit::{officer_context, seal_to};

    use super::{super::document::Envelope, *};

    fn document(public_key: [u8; 32]) -> Document {
        let sealed = seal_to(&public_key, &officer_context(&[1; 16]), &[9; 32]).unwrap();
        let envelope = Envelope { officer: "Ada".into(), public_key: public_key.into(), sealed };
        Document {
            text: String::new(),
            reminder: String::new(),
            backup: Some([1; 16]),
            envelopes: vec![envelope],
            shares_needed: Some(3),
            has_password: false,
        }
    }

    #[test]
    fn an_officer_opens_the_own_envelope() {
        let own = LockedKey::generate().unwrap();
        let public = officer::public_key(&own).unwrap();
        let key = open_as_officer(&document(public), &own).unwrap();
        // Expose: compared with what the test sealed.
        assert_eq!(key.expose(), &[9; 32]);

        let other = LockedKey::generate().unwrap();
        let failure = open_as_officer(&document(public), &other).unwrap_err();
        assert!(failure.hint().unwrap().contains("Ada"), "{failure:?}");
        let mut damaged = document(public);
        damaged.envelopes[0].sealed[40] ^= 1;
        assert_eq!(open_as_officer(&damaged, &own).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn without_a_password_the_other_ways_are_named() {
        let text = ways(&document([7; 32]));
        assert!(text.contains("of Ada") && text.contains("3 times"), "{text}");
    }
}
