//! The protector for starts with nobody there: a key in a private file or a systemd credential.
//!
//! It is as safe as the place of the file. Sealed to the machine by `systemd-creds encrypt` and given
//! to the service with `LoadCredentialEncrypted=`, it is worth nothing elsewhere.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sso_core::{
    memory::LockedKey,
    settings::exact_credential_or_file,
    wrapping::{UnwrapError, WrappingKey},
};
use uuid::Uuid;

use crate::{Kind, Protector, ProtectorError, Stanza, encoding::Base64, require_own};

/// The keystore key, wrapped under the key of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFileStanza {
    keystore: Uuid,
    wrapped: Base64,
}

/// Where the 32 bytes are: exactly one of the two is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFileSource {
    /// A file that only its owner may read.
    pub file: Option<PathBuf>,
    /// A systemd credential of this name.
    pub credential: Option<String>,
}

/// The protector with a key file. It reads the file each time and keeps nothing of it.
#[derive(Debug)]
pub struct KeyFile {
    source: KeyFileSource,
}

impl KeyFile {
    /// The protector whose key is at `source`.
    #[must_use]
    pub fn new(source: KeyFileSource) -> Self {
        Self { source }
    }

    fn key(&self) -> Result<WrappingKey, ProtectorError> {
        let KeyFileSource { file, credential } = &self.source;
        let found = exact_credential_or_file(credential.as_deref(), file.as_deref())?;
        // Expose: into locked memory.
        let bytes = found.as_ref().map_or(&[][..], |found| found.expose());
        let wrong = |_| ProtectorError::KeyFileLength { place: self.place(), found: bytes.len() };
        let bytes: &[u8; 32] = bytes.try_into().map_err(wrong)?;
        Ok(WrappingKey::new(&LockedKey::from_bytes(bytes)?))
    }

    fn place(&self) -> String {
        match (&self.source.credential, &self.source.file) {
            (Some(name), _) => format!("credential {name}"),
            (None, Some(file)) => file.display().to_string(),
            (None, None) => "no file".to_owned(),
        }
    }
}

impl Protector for KeyFile {
    fn kind(&self) -> Kind {
        Kind::KeyFile
    }

    fn label(&self) -> String {
        self.place()
    }

    fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
        // Expose: into the wrapping, for the keystore file.
        let wrapped = self.key()?.wrap(&context(&keystore), key.expose())?;
        Ok(Stanza::KeyFile(KeyFileStanza { keystore, wrapped: Base64(wrapped) }))
    }

    fn unwrap(&self, keystore: Uuid, stanza: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
        let Stanza::KeyFile(stanza) = stanza else { return Ok(None) };
        require_own("the key-file stanza", stanza.keystore, keystore)?;
        let unwrapped = self.key()?.unwrap(&context(&keystore), &stanza.wrapped.0);
        let key = unwrapped.map_err(|error| match error {
            UnwrapError::Malformed(what) => {
                ProtectorError::Damaged { kind: Kind::KeyFile, what: what.to_owned() }
            }
            UnwrapError::NotAuthentic => {
                ProtectorError::WrongKeyFile { place: self.place(), keystore }
            }
        })?;
        // Expose: from the wrapping into locked memory.
        Ok(Some(LockedKey::from_bytes(key.expose())?))
    }
}

fn context(keystore: &Uuid) -> [&[u8]; 2] {
    [b"key-file stanza", keystore.as_bytes()]
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn file(folder: &Path, content: &[u8]) -> KeyFile {
        let path = folder.join("unlock.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        KeyFile::new(KeyFileSource { file: Some(path), credential: None })
    }

    fn key() -> LockedKey {
        LockedKey::from_bytes(&[5; 32]).unwrap()
    }

    #[test]
    fn a_key_that_ends_like_a_line_is_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = [7; 32];
        bytes[31] = b'\n';
        let protector = file(folder.path(), &bytes);
        let stanza = protector.wrap(ID, &key()).unwrap();
        assert_eq!(protector.unwrap(ID, &stanza).unwrap(), Some(key()));
    }

    #[test]
    fn other_lengths_lax_files_and_other_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let stanza = file(folder.path(), &[7; 32]).wrap(ID, &key()).unwrap();
        for length in [1, 31, 33, 64] {
            let error = file(folder.path(), &vec![7; length]).unwrap(ID, &stanza).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("32") && text.contains("unlock.key"), "{text}");
        }
        let error = file(folder.path(), &[8; 32]).unwrap(ID, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::WrongKeyFile { .. }), "{error}");

        let protector = file(folder.path(), &[7; 32]);
        let path = folder.path().join("unlock.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = protector.unwrap(ID, &stanza).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
