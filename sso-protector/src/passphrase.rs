//! The protector that everyone has: a passphrase, stretched with Argon2id.

use std::{cell::RefCell, path::PathBuf};

use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};
use sso_core::{
    memory::{KeyError, LockedKey},
    passphrase::{Argon2Params, PassphraseError, SALT_BYTES, canonical, stretch},
    secret::SecretText,
    settings::credential_or_file,
    wrapping::{UnwrapError, WrappingKey},
};
use uuid::Uuid;

use crate::{
    Kind, Protector, ProtectorError, Stanza,
    encoding::Base64,
    prompt::{Asker, Question, as_text, check_length},
    require_own,
};

/// How often a passphrase may be typed wrong.
const ATTEMPTS: usize = 3;
const QUESTION: Question = Question {
    what: "the passphrase of the keystore",
    instead: "passphrase_file or credential in [[protector]] of the settings",
};

/// The keystore key, wrapped under a key stretched from a passphrase. It carries its own
/// parameters, so that they can rise for new stanzas; what it may ask for is capped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassphraseStanza {
    keystore: Uuid,
    work: Argon2Params,
    salt: Base64,
    wrapped: Base64,
}

/// Where the passphrase comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassphraseSource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// A systemd credential of this name.
    Credential(String),
    /// Whoever starts the program.
    Prompt,
}

impl PassphraseSource {
    /// The text of the file or credential; `None` when somebody has to be asked.
    pub(crate) fn read(&self, what: &'static str) -> Result<Option<SecretText>, ProtectorError> {
        let found = match self {
            Self::File(path) => credential_or_file(None, Some(path))?,
            Self::Credential(name) => credential_or_file(Some(name), None)?,
            Self::Prompt => None,
        };
        Ok(found.map(|bytes| as_text(what, &bytes)).transpose()?)
    }
}

/// The protector with a passphrase. It asks at most once for all stanzas, except after a wrong
/// answer.
#[derive(Debug)]
pub struct Passphrase {
    source: PassphraseSource,
    asker: Asker,
    work: Argon2Params,
    known: RefCell<Option<SecretText>>,
}

impl Passphrase {
    /// The protector whose passphrase comes from `source`; a prompt goes to the terminal.
    #[must_use]
    pub fn new(source: PassphraseSource) -> Self {
        Self::with(source, Asker::Terminal, Argon2Params::UNLOCK)
    }

    /// As [`Passphrase::new`], with another amount of work for new stanzas.
    #[must_use]
    pub fn with_work(source: PassphraseSource, work: Argon2Params) -> Self {
        Self::with(source, Asker::Terminal, work)
    }

    pub(crate) fn with(source: PassphraseSource, asker: Asker, work: Argon2Params) -> Self {
        Self { source, asker, work, known: RefCell::new(None) }
    }

    /// The passphrase; a new one has to be good enough, and is typed twice.
    fn passphrase(&self, new: bool) -> Result<SecretText, ProtectorError> {
        if let Some(known) = &*self.known.borrow() {
            return Ok(known.clone());
        }
        let passphrase = match self.source.read(QUESTION.what)? {
            Some(text) => text,
            None if new => self.asker.ask_new(QUESTION)?,
            None => self.asker.ask(QUESTION)?,
        };
        if new {
            check_length(QUESTION.what, &passphrase)?;
        }
        *self.known.borrow_mut() = Some(passphrase.clone());
        Ok(passphrase)
    }

    fn may_ask_again(&self) -> bool {
        self.source == PassphraseSource::Prompt && self.asker.is_interactive()
    }
}

impl Protector for Passphrase {
    fn kind(&self) -> Kind {
        Kind::Passphrase
    }

    fn label(&self) -> String {
        match &self.source {
            PassphraseSource::File(path) => path.display().to_string(),
            PassphraseSource::Credential(name) => format!("credential {name}"),
            PassphraseSource::Prompt => "asked for".to_owned(),
        }
    }

    fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
        let passphrase = self.passphrase(true)?;
        let mut salt = [0; SALT_BYTES];
        SysRng.try_fill_bytes(&mut salt).map_err(|error| KeyError::Random(error.to_string()))?;
        let stretched = stretch(&canonical(&passphrase), &salt, &self.work)?;
        // Expose: into the wrapping, for the keystore file.
        let wrapped = WrappingKey::new(&stretched).wrap(&context(&keystore), key.expose())?;
        Ok(Stanza::Passphrase(PassphraseStanza {
            keystore,
            work: self.work,
            salt: Base64(salt.to_vec()),
            wrapped: Base64(wrapped),
        }))
    }

    fn unwrap(&self, keystore: Uuid, stanza: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
        let Stanza::Passphrase(stanza) = stanza else { return Ok(None) };
        require_own("the passphrase stanza", stanza.keystore, keystore)?;
        stanza.work.check().map_err(PassphraseError::from)?;
        let mut left = if self.may_ask_again() { ATTEMPTS } else { 1 };
        loop {
            left -= 1;
            match stanza.unwrap(&self.passphrase(false)?) {
                Err(ProtectorError::WrongPassphrase(_)) if left > 0 => {
                    tracing::warn!(attempts_left = left, "wrong passphrase");
                    self.known.borrow_mut().take();
                }
                result => return result.map(Some),
            }
        }
    }
}

impl PassphraseStanza {
    fn unwrap(&self, passphrase: &SecretText) -> Result<LockedKey, ProtectorError> {
        let damaged =
            |what: &str| ProtectorError::Damaged { kind: Kind::Passphrase, what: what.to_owned() };
        let salt = self.salt.0.as_slice().try_into().map_err(|_| damaged("its salt"))?;
        let stretched = stretch(&canonical(passphrase), salt, &self.work)?;
        let key = WrappingKey::new(&stretched)
            .unwrap(&context(&self.keystore), &self.wrapped.0)
            .map_err(|error| match error {
                UnwrapError::Malformed(what) => damaged(what),
                UnwrapError::NotAuthentic => ProtectorError::WrongPassphrase(self.keystore),
            })?;
        // Expose: from the wrapping into locked memory.
        Ok(LockedKey::from_bytes(key.expose())?)
    }
}

fn context(keystore: &Uuid) -> [&[u8]; 2] {
    [b"passphrase stanza", keystore.as_bytes()]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn prompted<const N: usize>(answers: [&'static str; N]) -> Passphrase {
        let asker = Asker::scripted(answers);
        Passphrase::with(PassphraseSource::Prompt, asker, Argon2Params::FLOOR)
    }

    fn key() -> LockedKey {
        LockedKey::from_bytes(&[5; 32]).unwrap()
    }

    fn stanza() -> PassphraseStanza {
        let protector = prompted(["correct horse", "correct horse"]);
        let Stanza::Passphrase(stanza) = protector.wrap(ID, &key()).unwrap() else {
            panic!("a passphrase makes a stanza of its own kind");
        };
        stanza
    }

    #[test]
    fn the_right_passphrase_gives_the_key() {
        let stanza = Stanza::Passphrase(stanza());
        let protector = prompted(["correct horse"]);
        assert_eq!(protector.unwrap(ID, &stanza).unwrap(), Some(key()));
        assert_eq!(protector.unwrap(ID, &stanza).unwrap(), Some(key()), "it asks once");
    }

    #[test]
    fn a_wrong_passphrase_may_be_corrected_twice() {
        let stanza = Stanza::Passphrase(stanza());
        let protector = prompted(["wrong one", "wrong two", "correct horse"]);
        assert_eq!(protector.unwrap(ID, &stanza).unwrap(), Some(key()));
        let protector = prompted(["wrong one", "wrong two", "wrong three", "correct horse"]);
        let error = protector.unwrap(ID, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::WrongPassphrase(ID)), "{error}");
    }

    #[test]
    fn the_passphrase_of_a_file_is_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        std::fs::write(&path, "correct horse\n").unwrap();
        let protector = || {
            let source = PassphraseSource::File(path.clone());
            Passphrase::with(source, Asker::scripted(["correct horse"]), Argon2Params::FLOOR)
        };
        let stanza = Stanza::Passphrase(stanza());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = protector().unwrap(ID, &stanza).unwrap_err().to_string();
        assert!(error.contains("0644"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(protector().unwrap(ID, &stanza).unwrap(), Some(key()));
        std::fs::write(&path, "correct house\n").unwrap();
        let error = protector().unwrap(ID, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::WrongPassphrase(ID)), "{error}");
    }

    #[test]
    fn a_new_passphrase_must_be_long_enough_wherever_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        std::fs::write(&path, "short").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = Passphrase::new(PassphraseSource::File(path)).wrap(ID, &key()).unwrap_err();
        assert!(error.to_string().contains("7 to 256"), "{error}");
    }

    #[test]
    fn stanzas_of_others_are_told_apart_from_broken_ones() {
        let protector = prompted(["correct horse"]);
        let foreign = PassphraseStanza { keystore: Uuid::from_u128(2), ..stanza() };
        let error = protector.unwrap(ID, &Stanza::Passphrase(foreign)).unwrap_err();
        assert!(matches!(error, ProtectorError::Foreign { .. }), "{error}");

        let damaged = PassphraseStanza { salt: Base64(vec![1; 15]), ..stanza() };
        let error = protector.unwrap(ID, &Stanza::Passphrase(damaged)).unwrap_err();
        assert!(matches!(error, ProtectorError::Damaged { .. }), "{error}");

        let greedy = Argon2Params { memory_kib: u32::MAX, ..Argon2Params::CAP };
        let greedy = PassphraseStanza { work: greedy, ..stanza() };
        let error = protector.unwrap(ID, &Stanza::Passphrase(greedy)).unwrap_err();
        assert!(error.to_string().contains("memory_kib"), "{error}");

        let stanza = crate::RingStanza::new(ID, &key());
        assert_eq!(protector.unwrap(ID, &Stanza::Keyutils(stanza)).unwrap(), None);
    }
}
