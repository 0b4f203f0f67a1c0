//! How settings files name protectors: one `[[protector]]` each, first the one to ask first.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sso_core::settings::resolve;

use crate::{
    Kind, OsKeyring, Passphrase, PassphraseSource, Protector, ProtectorError,
    key_file::{KeyFile, KeyFileSource},
    pkcs11::{Pkcs11, TokenKey},
};

/// One `[[protector]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ProtectorSettings {
    /// A passphrase; with neither file nor credential it is asked for on the terminal.
    Passphrase {
        /// A private file with it.
        passphrase_file: Option<PathBuf>,
        /// A systemd credential with it.
        credential: Option<String>,
    },
    /// The Secret Service of the desktop.
    SecretService {},
    /// The kernel's keyring, which forgets at a restart of the machine.
    Keyutils {},
    /// A key that never leaves a PKCS#11 token; with neither file nor credential its PIN is asked
    /// for on the terminal.
    Pkcs11 {
        /// The library of the token's maker.
        module: PathBuf,
        /// The label of the token.
        token: String,
        /// The label of the wrapping key in it.
        key: String,
        /// A private file with the PIN of the token's user.
        pin_file: Option<PathBuf>,
        /// A systemd credential with that PIN.
        credential: Option<String>,
    },
    /// A wrapping key of exactly 32 random bytes, for starts with nobody there.
    KeyFile {
        /// A private file with them.
        key_file: Option<PathBuf>,
        /// A systemd credential with them, best from `LoadCredentialEncrypted=`.
        credential: Option<String>,
    },
}

impl ProtectorSettings {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Passphrase { .. } => Kind::Passphrase,
            Self::SecretService {} => Kind::SecretService,
            Self::Keyutils {} => Kind::Keyutils,
            Self::Pkcs11 { .. } => Kind::Pkcs11,
            Self::KeyFile { .. } => Kind::KeyFile,
        }
    }

    /// Lets relative paths start at the folder of the settings file.
    pub fn resolve(&mut self, base: &Path) {
        let file = match self {
            Self::SecretService {} | Self::Keyutils {} => return,
            Self::Passphrase { passphrase_file: file, .. }
            | Self::KeyFile { key_file: file, .. } => file,
            Self::Pkcs11 { module, pin_file, .. } => {
                *module = resolve(base, module);
                pin_file
            }
        };
        *file = file.as_deref().map(|file| resolve(base, file));
    }

    /// Refuses what makes no sense, without using anything.
    ///
    /// # Errors
    /// The key below `[[protector]]`, and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        let refused = |key: &str, message: &str| Err((key.to_owned(), message.to_owned()));
        match self {
            Self::SecretService {} | Self::Keyutils {} => Ok(()),
            Self::Passphrase { passphrase_file: Some(_), credential: Some(_) } => {
                refused("credential", "not together with passphrase_file: keep one of them")
            }
            Self::Pkcs11 { pin_file: Some(_), credential: Some(_), .. } => {
                refused("credential", "not together with pin_file: keep one of them")
            }
            Self::KeyFile { key_file: Some(_), credential: Some(_) } => {
                refused("credential", "not together with key_file: keep one of them")
            }
            Self::KeyFile { key_file: None, credential: None } => {
                refused("key_file", "name a private file with 32 random bytes, or a credential")
            }
            Self::Pkcs11 { token, .. } if token.trim().is_empty() => {
                refused("token", "write the label of the token, as `pkcs11-tool -L` shows it")
            }
            Self::Pkcs11 { key, .. } if key.trim().is_empty() => {
                refused("key", "write a label for the wrapping key; it is made when it is missing")
            }
            Self::Passphrase { .. } | Self::Pkcs11 { .. } | Self::KeyFile { .. } => Ok(()),
        }
    }

    /// Whether the secret of this protector is typed in by somebody.
    #[must_use]
    pub fn prompts(&self) -> bool {
        matches!(
            self,
            Self::Passphrase { passphrase_file: None, credential: None }
                | Self::Pkcs11 { pin_file: None, credential: None, .. }
        )
    }

    /// The protector that is meant.
    ///
    /// # Errors
    /// When it cannot be used here: no keyring, no such module, no such token.
    pub fn protector(&self) -> Result<Box<dyn Protector>, ProtectorError> {
        Ok(match self {
            Self::Passphrase { passphrase_file, credential } => {
                Box::new(Passphrase::new(source(passphrase_file.as_ref(), credential.as_ref())))
            }
            Self::SecretService {} => Box::new(OsKeyring::secret_service()?),
            Self::Keyutils {} => Box::new(OsKeyring::keyutils()?),
            Self::Pkcs11 { module, token, key, pin_file, credential } => {
                let key =
                    TokenKey { module: module.clone(), token: token.clone(), key: key.clone() };
                Box::new(Pkcs11::open(key, source(pin_file.as_ref(), credential.as_ref()))?)
            }
            Self::KeyFile { key_file, credential } => Box::new(KeyFile::new(KeyFileSource {
                file: key_file.clone(),
                credential: credential.clone(),
            })),
        })
    }
}

/// Where a secret comes from that may also be typed in.
fn source(file: Option<&PathBuf>, credential: Option<&String>) -> PassphraseSource {
    match (file, credential) {
        (Some(file), _) => PassphraseSource::File(file.clone()),
        (None, Some(name)) => PassphraseSource::Credential(name.clone()),
        (None, None) => PassphraseSource::Prompt,
    }
}

/// The protectors that the settings name, in their order.
///
/// # Errors
/// When one cannot be used. With `skip_unusable` that is a warning, and an error only when no other
/// is left.
pub fn protectors(
    settings: &[ProtectorSettings],
    skip_unusable: bool,
) -> Result<Vec<Box<dyn Protector>>, ProtectorError> {
    let mut usable = Vec::new();
    let mut failure = None;
    for entry in settings {
        match entry.protector() {
            Ok(protector) => usable.push(protector),
            Err(error) if skip_unusable => {
                if settings.len() > 1 {
                    tracing::warn!(%error, protector = %entry.kind(), "left out");
                }
                failure = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match failure {
        Some(error) if usable.is_empty() => Err(error),
        _ => Ok(usable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        protector: Vec<ProtectorSettings>,
    }

    fn read(text: &str) -> Result<ProtectorSettings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, format!("version = 1\n[[protector]]\n{text}\n")).unwrap();
        let file: File = sso_core::settings::load(&path).map_err(|error| error.to_string())?;
        Ok(file.protector.into_iter().next().unwrap())
    }

    const TOKEN: &str = "kind = 'pkcs11'\nmodule = 'lib.so'\ntoken = 'sso'\nkey = 'keystore'\n";

    #[test]
    fn every_kind_is_read_and_paths_start_at_the_settings() {
        for (text, kind, prompts) in [
            ("kind = 'passphrase'", Kind::Passphrase, true),
            ("kind = 'passphrase'\ncredential = 'master'", Kind::Passphrase, false),
            ("kind = 'secret-service'", Kind::SecretService, false),
            ("kind = 'keyutils'", Kind::Keyutils, false),
            (TOKEN, Kind::Pkcs11, true),
            ("kind = 'key-file'\ncredential = 'unlock'", Kind::KeyFile, false),
        ] {
            let settings = read(text).unwrap();
            assert_eq!((settings.kind(), settings.prompts()), (kind, prompts), "{text}");
            assert_eq!(settings.check(), Ok(()), "{text}");
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("pin".parse::<Kind>().unwrap_err().contains("key-file"));

        let mut settings = read(&format!("{TOKEN}pin_file = '/p/pin'")).unwrap();
        settings.resolve(Path::new("/etc/sso"));
        let expected = ProtectorSettings::Pkcs11 {
            module: "/etc/sso/lib.so".into(),
            token: "sso".into(),
            key: "keystore".into(),
            pin_file: Some("/p/pin".into()),
            credential: None,
        };
        assert_eq!(settings, expected);
        let mut settings = read("kind = 'key-file'\nkey_file = 'unlock'").unwrap();
        settings.resolve(Path::new("/etc/sso"));
        let key_file = Some("/etc/sso/unlock".into());
        assert_eq!(settings, ProtectorSettings::KeyFile { key_file, credential: None });
    }

    #[test]
    fn keys_of_other_kinds_are_unknown() {
        for text in [
            "kind = 'keyutils'\npassphrase_file = 'x'",
            "kind = 'secret-service'\ncredential = 'x'",
            "kind = 'passphrase'\npin_file = 'x'",
            "kind = 'pkcs'",
            "kind = 'pkcs11'\nmodule = 'lib.so'",
            "passphrase_file = 'x'",
        ] {
            assert!(read(text).unwrap_err().contains("a.toml"), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (text, key) in [
            ("kind = 'passphrase'\ncredential = 'a'\npassphrase_file = 'b'", "credential"),
            ("kind = 'key-file'\ncredential = 'a'\nkey_file = 'b'", "credential"),
            ("kind = 'key-file'", "key_file"),
            (&format!("{TOKEN}pin_file = 'a'\ncredential = 'b'"), "credential"),
            (&TOKEN.replace("'sso'", "' '"), "token"),
            (&TOKEN.replace("'keystore'", "''"), "key"),
        ] {
            assert_eq!(read(text).unwrap().check().unwrap_err().0, key, "{text}");
        }
    }
}
