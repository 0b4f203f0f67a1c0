//! Protectors: who gives the keystore key back when the program starts.
//!
//! All of them meet at one joint. A protector *wraps*: it makes a [`Stanza`] for the keystore file,
//! from which it can give the key back. And it *unwraps*: `None` says that the stanza is another
//! protector's, an error that it is its own and cannot be used. A keystore may have several stanzas,
//! each of which is enough.

pub mod encoding;
mod key_file;
mod os_keyring;
mod passphrase;
mod pkcs11;
pub mod prompt;
mod settings;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sso_core::{
    derive::Fingerprint,
    memory::{KeyError, LockedKey},
    passphrase::PassphraseError,
    seal::SealError,
    settings::SettingsError,
};
use uuid::Uuid;

pub use self::{
    key_file::{KeyFile, KeyFileSource, KeyFileStanza},
    os_keyring::OsKeyring,
    passphrase::{Passphrase, PassphraseSource, PassphraseStanza},
    pkcs11::{Pkcs11, Pkcs11Stanza, TokenKey},
    settings::{ProtectorSettings, protectors},
};
use crate::prompt::PromptError;

/// How one protector gives the keystore key back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Stanza {
    /// Wrapped under a key stretched from a passphrase.
    Passphrase(PassphraseStanza),
    /// Kept by the Secret Service of the desktop.
    SecretService(RingStanza),
    /// Kept in the kernel's keyring until reboot.
    Keyutils(RingStanza),
    /// Wrapped under a key that a PKCS#11 token never gives away.
    Pkcs11(Pkcs11Stanza),
    /// Wrapped under the key of a file.
    KeyFile(KeyFileStanza),
}

/// The keystore key is kept by a keyring of the operating system, under the id of the keystore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingStanza {
    /// The keystore it belongs to.
    pub(crate) keystore: Uuid,
    /// The fingerprint of the keystore key.
    #[serde(with = "encoding::fingerprint")]
    pub(crate) fingerprint: Fingerprint,
}

impl RingStanza {
    /// The stanza of a keyring that keeps the keystore key `key`.
    #[must_use]
    pub fn new(keystore: Uuid, key: &LockedKey) -> Self {
        Self { keystore, fingerprint: Fingerprint::of(key) }
    }
}

/// The kinds of protectors, as settings and keystores name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A passphrase, from a file, a credential or a prompt.
    Passphrase,
    /// The Secret Service of the desktop.
    SecretService,
    /// The kernel's keyring.
    Keyutils,
    /// A PKCS#11 token.
    Pkcs11,
    /// A file or credential with a key.
    KeyFile,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Passphrase, Self::SecretService, Self::Keyutils, Self::Pkcs11, Self::KeyFile];
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        known.ok_or_else(|| format!("write one of: {}", list(&Self::ALL)))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::SecretService => "secret-service",
            Self::Keyutils => "keyutils",
            Self::Pkcs11 => "pkcs11",
            Self::KeyFile => "key-file",
        })
    }
}

impl Stanza {
    /// The kind of protector that made it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Passphrase(_) => Kind::Passphrase,
            Self::SecretService(_) => Kind::SecretService,
            Self::Keyutils(_) => Kind::Keyutils,
            Self::Pkcs11(_) => Kind::Pkcs11,
            Self::KeyFile(_) => Kind::KeyFile,
        }
    }

    /// Which one of its kind it is, as far as it says so.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Passphrase(_) | Self::SecretService(_) | Self::Keyutils(_) | Self::KeyFile(_) => {
                String::new()
            }
            Self::Pkcs11(stanza) => stanza.label(),
        }
    }
}

/// Why a protector does not give the keystore key.
#[derive(Debug, thiserror::Error)]
pub enum ProtectorError {
    /// The passphrase is not the one of this keystore.
    #[error("wrong passphrase for keystore {0}; enter the one chosen when it was made")]
    WrongPassphrase(Uuid),
    /// A stanza or an entry belongs to another keystore.
    #[error(
        "{what} belongs to keystore {found}, this is keystore {keystore}; \
         check that settings, keystore and protector belong together"
    )]
    Foreign {
        /// What belongs elsewhere.
        what: String,
        /// Where it belongs.
        found: Uuid,
        /// The keystore at hand.
        keystore: Uuid,
    },
    /// A keyring has a key of the right name that is not the one of this keystore.
    #[error(
        "the {kind} entry of keystore {keystore} holds another key, as after a restore; delete the \
         entry {entry} and unlock with the passphrase, or restore the backup"
    )]
    OtherKey {
        /// Which keyring.
        kind: Kind,
        /// The keystore at hand.
        keystore: Uuid,
        /// How the keyring names the entry.
        entry: String,
    },
    /// The keyring has no entry for this keystore.
    #[error("the {kind} keyring has no key for keystore {keystore}{advice}")]
    EntryMissing {
        /// Which keyring.
        kind: Kind,
        /// The keystore at hand.
        keystore: Uuid,
        /// What may have happened, after a colon.
        advice: &'static str,
    },
    /// The keyring cannot be used.
    #[error("the {kind} keyring cannot be used: {reason}{advice}")]
    Unavailable {
        /// Which keyring.
        kind: Kind,
        /// What it says.
        reason: String,
        /// What to do, after a semicolon.
        advice: &'static str,
    },
    /// The keystore has no stanza for any protector of the settings.
    #[error(
        "keystore {keystore} is not protected by {}; its stanzas are: {}. Change [[protector]] in the \
         settings",
        list(configured),
        list(present)
    )]
    NoStanza {
        /// The keystore at hand.
        keystore: Uuid,
        /// What the settings name.
        configured: Vec<Kind>,
        /// What the keystore has.
        present: Vec<Kind>,
    },
    /// The key of the file is not the one that wrapped.
    #[error(
        "the key of {place} does not open keystore {keystore}; name the file that it was made with"
    )]
    WrongKeyFile {
        /// The file or credential.
        place: String,
        /// The keystore at hand.
        keystore: Uuid,
    },
    /// A key file has another length.
    #[error(
        "{place} has {found} bytes, a key has exactly 32: make one with `head -c 32 /dev/urandom`"
    )]
    KeyFileLength {
        /// The file or credential.
        place: String,
        /// How many bytes it has.
        found: usize,
    },
    /// The token refused the PIN, which is tried once only.
    #[error(
        "the token {token} refuses the PIN. It was tried once and is not tried again, because tokens \
         lock themselves after a few wrong ones: correct it in [[protector]] before the next start"
    )]
    WrongPin {
        /// The label of the token.
        token: String,
    },
    /// A PKCS#11 token cannot be used.
    #[error("PKCS#11 token {token}: {problem}")]
    Token {
        /// The label of the token.
        token: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A token unwraps nothing from the stanza.
    #[error(
        "the {kind} stanza of keystore {keystore} is not authentic: it was changed, or the key of \
         that name is not the one that wrapped. Unlock with another protector, remove the stanza and \
         add it again"
    )]
    NotAuthentic {
        /// Which stanza.
        kind: Kind,
        /// The keystore at hand.
        keystore: Uuid,
    },
    /// A stanza is not well formed.
    #[error("the {kind} stanza of the keystore is damaged: {what}")]
    Damaged {
        /// Which stanza.
        kind: Kind,
        /// What is wrong with it.
        what: String,
    },
    /// This program was built without that protector.
    #[error("this program was built without the protector {0}")]
    NotBuilt(Kind),
    /// A passphrase cannot be stretched.
    #[error(transparent)]
    Stretch(#[from] PassphraseError),
    /// Nobody gave a passphrase.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The file or credential with the passphrase cannot be read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A key cannot be held in memory.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key cannot be wrapped.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The joint. What implements it may block: call it before the runtime starts, or where blocking is
/// allowed.
pub trait Protector: Send {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// Which one of its kind it is: a file, a token and its key; empty when there is but one.
    fn label(&self) -> String {
        String::new()
    }

    /// Whether the stanza is of this protector's making, as far as kinds and names tell.
    fn covers(&self, stanza: &Stanza) -> bool {
        stanza.kind() == self.kind()
    }

    /// Takes charge of `key`: from the stanza returned it can be given back.
    ///
    /// # Errors
    /// When the protector cannot be used.
    fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError>;

    /// The key that the stanza stands for; `None` when another protector made the stanza.
    ///
    /// # Errors
    /// When the stanza is this protector's and does not give the key.
    fn unwrap(&self, keystore: Uuid, stanza: &Stanza) -> Result<Option<LockedKey>, ProtectorError>;

    /// Puts the key back that `unwrap` missed, where the keyring forgets; the stanza stays as it is.
    ///
    /// # Errors
    /// When the protector cannot be used.
    fn put_back(&self, _keystore: Uuid, _key: &LockedKey) -> Result<(), ProtectorError> {
        Ok(())
    }

    /// Lets go of what `wrap` keeps outside the keystore.
    ///
    /// # Errors
    /// When the protector cannot be used.
    fn forget(&self, _keystore: Uuid) -> Result<(), ProtectorError> {
        Ok(())
    }
}

/// The keystore key, from the first protector that gives it. A keyring that has lost it gets it back.
///
/// # Errors
/// Why the last protector with a stanza did not give it; a wrong PIN before anything else.
pub fn unlock(
    protectors: &[Box<dyn Protector>],
    keystore: Uuid,
    stanzas: &[Stanza],
) -> Result<LockedKey, ProtectorError> {
    let mut failure = None;
    let mut forgetful = Vec::new();
    for protector in protectors {
        match give(protector.as_ref(), keystore, stanzas) {
            Ok(None) => {}
            Ok(Some(key)) => {
                put_back(&forgetful, keystore, &key);
                return Ok(key);
            }
            Err(error) => {
                if matches!(error, ProtectorError::EntryMissing { .. }) {
                    forgetful.push(protector.as_ref());
                }
                if protectors.len() > 1 {
                    tracing::warn!(%error, protector = %protector.kind(), "not unlocked");
                }
                failure = Some(match failure {
                    // Decides the exit code: what starts the program again must not try once more.
                    Some(wrong @ ProtectorError::WrongPin { .. }) => wrong,
                    _ => error,
                });
            }
        }
    }
    Err(failure.unwrap_or_else(|| ProtectorError::NoStanza {
        keystore,
        configured: protectors.iter().map(|protector| protector.kind()).collect(),
        present: stanzas.iter().map(Stanza::kind).collect(),
    }))
}

/// The key from any of the protector's stanzas, or why the last of them does not give it.
fn give(
    protector: &dyn Protector,
    keystore: Uuid,
    stanzas: &[Stanza],
) -> Result<Option<LockedKey>, ProtectorError> {
    let mut failure = None;
    for stanza in stanzas {
        match protector.unwrap(keystore, stanza) {
            Ok(None) => {}
            Ok(Some(key)) => return Ok(Some(key)),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}

fn put_back(forgetful: &[&dyn Protector], keystore: Uuid, key: &LockedKey) {
    for protector in forgetful {
        match protector.put_back(keystore, key) {
            Ok(()) => {
                tracing::info!(protector = %protector.kind(), "the keyring has its key again");
            }
            Err(error) => {
                tracing::warn!(%error, protector = %protector.kind(), "the keyring stays empty");
            }
        }
    }
}

fn list(kinds: &[Kind]) -> String {
    let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Refuses what belongs to another keystore.
fn require_own(what: &str, found: Uuid, keystore: Uuid) -> Result<(), ProtectorError> {
    if found == keystore {
        return Ok(());
    }
    Err(ProtectorError::Foreign { what: what.to_owned(), found, keystore })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    #[derive(Debug)]
    struct Fails(fn() -> ProtectorError);

    impl Protector for Fails {
        fn kind(&self) -> Kind {
            Kind::Keyutils
        }

        fn wrap(&self, _: Uuid, _: &LockedKey) -> Result<Stanza, ProtectorError> {
            Err(self.0())
        }

        fn unwrap(&self, _: Uuid, _: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
            Err(self.0())
        }
    }

    #[test]
    fn a_wrong_pin_is_what_the_service_manager_hears_of() {
        let key = LockedKey::from_bytes(&[1; 32]).unwrap();
        let stanzas = [Stanza::Keyutils(RingStanza::new(ID, &key))];
        let pin = || ProtectorError::WrongPin { token: "sso".into() };
        let passphrase = || ProtectorError::WrongPassphrase(ID);
        for both in [[pin, passphrase], [passphrase, pin]] {
            let made = both.map(|fails| Box::new(Fails(fails)) as Box<dyn Protector>);
            let error = unlock(&made, ID, &stanzas).unwrap_err();
            assert!(matches!(error, ProtectorError::WrongPin { .. }), "{error}");
        }
        let error = unlock(&[], ID, &stanzas).unwrap_err().to_string();
        assert!(error.contains("its stanzas are: keyutils"), "{error}");
    }
}
