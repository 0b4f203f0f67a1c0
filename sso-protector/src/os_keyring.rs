//! Protectors that leave the keystore key with the operating system.
//!
//! The **Secret Service** (gnome-keyring, KWallet, KeePassXC) keeps it for good, unlocked with the
//! user's login. The **kernel keyring** keeps it until the machine restarts, and forgets it after
//! three days without use: it spares an operator the passphrase at restarts of the service, and the
//! passphrase stanza beside it is what survives.
//!
//! The entry is named by the id of the keystore and holds `id 16 ‖ key 32`, so that a foreign entry
//! is named as one. The Secret Service library runs a runtime of its own and must not be called
//! inside one of tokio's.

use std::sync::Arc;

use keyring_core::{CredentialStore, Entry};
use sso_core::{derive::Fingerprint, memory::LockedKey};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{Kind, Protector, ProtectorError, RingStanza, Stanza, require_own};

/// What the entries are called by.
const SERVICE: &str = "sso-master";
const ID_BYTES: usize = 16;
const ENTRY_BYTES: usize = ID_BYTES + 32;

/// The protector with a keyring of the operating system.
#[derive(Debug)]
pub struct OsKeyring {
    kind: Kind,
    store: Arc<CredentialStore>,
}

impl OsKeyring {
    /// The keyring of the Linux kernel.
    ///
    /// Entries are found through the session keyring of the calling thread and live in the user's
    /// persistent keyring. A thread without a session keyring of its own joins a new one here, which
    /// threads started later inherit; without one the kernel denies access even to one's own keys.
    ///
    /// # Errors
    /// When the kernel has no keyrings or denies them, as some containers do.
    pub fn keyutils() -> Result<Self, ProtectorError> {
        use linux_keyutils::{KeyRing, KeyRingIdentifier};

        let kind = Kind::Keyutils;
        KeyRing::from_special_id(KeyRingIdentifier::Session, true)
            .map_err(|error| unavailable(kind, &error))?;
        let store = linux_keyutils_keyring_store::Store::new();
        Ok(Self { kind, store: store.map_err(|error| unavailable(kind, &error))? })
    }

    /// The Secret Service on the session bus.
    ///
    /// # Errors
    /// When there is no session bus or nobody serves secrets on it, or this program was built
    /// without the feature `secret-service`.
    pub fn secret_service() -> Result<Self, ProtectorError> {
        let kind = Kind::SecretService;
        #[cfg(feature = "secret-service")]
        {
            let store = zbus_secret_service_keyring_store::Store::new();
            Ok(Self { kind, store: store.map_err(|error| unavailable(kind, &error))? })
        }
        #[cfg(not(feature = "secret-service"))]
        Err(ProtectorError::NotBuilt(kind))
    }

    fn entry(&self, keystore: Uuid) -> Result<Entry, ProtectorError> {
        self.store
            .build(SERVICE, &keystore.to_string(), None)
            .map_err(|error| unavailable(self.kind, &error))
    }

    fn own(&self, stanza: &Stanza) -> Option<RingStanza> {
        match (self.kind, stanza) {
            (Kind::Keyutils, Stanza::Keyutils(stanza))
            | (Kind::SecretService, Stanza::SecretService(stanza)) => Some(stanza.clone()),
            _ => None,
        }
    }

    fn missing(&self, keystore: Uuid) -> ProtectorError {
        let advice = match self.kind {
            Kind::Keyutils => {
                ": the kernel forgets it at reboot and after days without use; unlock with the \
                 passphrase"
            }
            Kind::SecretService | Kind::Passphrase | Kind::Pkcs11 | Kind::KeyFile => {
                ": is this the user and the login keyring that it was made with?"
            }
        };
        ProtectorError::EntryMissing { kind: self.kind, keystore, advice }
    }

    fn damaged(&self, what: &str) -> ProtectorError {
        ProtectorError::Damaged { kind: self.kind, what: what.to_owned() }
    }
}

impl Protector for OsKeyring {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn wrap(&self, keystore: Uuid, key: &LockedKey) -> Result<Stanza, ProtectorError> {
        self.put_back(keystore, key)?;
        let stanza = RingStanza::new(keystore, key);
        Ok(match self.kind {
            Kind::SecretService => Stanza::SecretService(stanza),
            Kind::Keyutils | Kind::Passphrase | Kind::Pkcs11 | Kind::KeyFile => {
                Stanza::Keyutils(stanza)
            }
        })
    }

    fn unwrap(&self, keystore: Uuid, stanza: &Stanza) -> Result<Option<LockedKey>, ProtectorError> {
        let Some(stanza) = self.own(stanza) else { return Ok(None) };
        require_own(&format!("the {} stanza", self.kind), stanza.keystore, keystore)?;
        let secret = match self.entry(keystore)?.get_secret() {
            Ok(secret) => Zeroizing::new(secret),
            Err(keyring_core::Error::NoEntry) => return Err(self.missing(keystore)),
            Err(error) => return Err(unavailable(self.kind, &error)),
        };
        let (id, key) = match secret.split_first_chunk::<ID_BYTES>() {
            Some(parts) if secret.len() == ENTRY_BYTES => parts,
            _ => return Err(self.damaged("its entry has not the right length")),
        };
        require_own(&format!("the {} entry", self.kind), Uuid::from_bytes(*id), keystore)?;
        let key = LockedKey::from_bytes(key)?;
        if Fingerprint::of(&key) != stanza.fingerprint {
            let entry = format!("{keystore}@{SERVICE}");
            return Err(ProtectorError::OtherKey { kind: self.kind, keystore, entry });
        }
        Ok(Some(key))
    }

    fn put_back(&self, keystore: Uuid, key: &LockedKey) -> Result<(), ProtectorError> {
        let mut secret = Zeroizing::new(Vec::with_capacity(ENTRY_BYTES));
        secret.extend_from_slice(keystore.as_bytes());
        // Expose: into the keyring of the operating system, whose charge it is.
        secret.extend_from_slice(key.expose());
        let entry = self.entry(keystore)?;
        entry.set_secret(&secret).map_err(|error| unavailable(self.kind, &error))
    }

    fn forget(&self, keystore: Uuid) -> Result<(), ProtectorError> {
        match self.entry(keystore)?.delete_credential() {
            Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
            Err(error) => Err(unavailable(self.kind, &error)),
        }
    }
}

/// Errors of keyrings may carry the secret they are about; only their text is taken over.
fn unavailable(kind: Kind, error: &dyn std::fmt::Display) -> ProtectorError {
    let advice = match kind {
        Kind::Keyutils => {
            "; the kernel has to allow keyrings (a container's seccomp profile may not), and the \
             service needs one of its own (KeyringMode=private)"
        }
        Kind::SecretService | Kind::Passphrase | Kind::Pkcs11 | Kind::KeyFile => {
            "; it needs a session bus (DBUS_SESSION_BUS_ADDRESS) with an unlocked login keyring"
        }
    };
    ProtectorError::Unavailable { kind, reason: error.to_string(), advice }
}

#[cfg(test)]
mod tests {
    use keyring_core::mock;

    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn keyring(kind: Kind) -> OsKeyring {
        OsKeyring { kind, store: mock::Store::new().unwrap() }
    }

    fn key(byte: u8) -> LockedKey {
        LockedKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn it_gives_back_what_it_took_and_forgets() {
        for kind in [Kind::Keyutils, Kind::SecretService] {
            let keyring = keyring(kind);
            let stanza = keyring.wrap(ID, &key(1)).unwrap();
            assert_eq!(stanza.kind(), kind);
            assert_eq!(keyring.unwrap(ID, &stanza).unwrap(), Some(key(1)));
            keyring.forget(ID).unwrap();
            let error = keyring.unwrap(ID, &stanza).unwrap_err();
            assert!(matches!(error, ProtectorError::EntryMissing { .. }), "{error}");
            keyring.forget(ID).unwrap();
            keyring.put_back(ID, &key(1)).unwrap();
            assert_eq!(keyring.unwrap(ID, &stanza).unwrap(), Some(key(1)));
        }
    }

    #[test]
    fn what_belongs_elsewhere_is_named() {
        let keyring = keyring(Kind::Keyutils);
        let stanza = keyring.wrap(ID, &key(1)).unwrap();
        let other = Uuid::from_u128(2);
        let error = keyring.unwrap(other, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::Foreign { .. }), "{error}");

        keyring.put_back(ID, &key(9)).unwrap();
        let error = keyring.unwrap(ID, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::OtherKey { .. }), "{error}");

        let mut secret = other.as_bytes().to_vec();
        secret.extend_from_slice(&[1; 32]);
        keyring.entry(ID).unwrap().set_secret(&secret).unwrap();
        let error = keyring.unwrap(ID, &stanza).unwrap_err();
        assert!(error.to_string().contains(&other.to_string()), "{error}");

        keyring.entry(ID).unwrap().set_secret(&[1; 47]).unwrap();
        let error = keyring.unwrap(ID, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::Damaged { .. }), "{error}");

        let other = self::keyring(Kind::SecretService);
        assert_eq!(other.unwrap(ID, &stanza).unwrap(), None);
    }

    #[test]
    fn a_keyring_that_fails_says_so() {
        let keyring = keyring(Kind::SecretService);
        let stanza = keyring.wrap(ID, &key(1)).unwrap();
        let entry = keyring.entry(ID).unwrap();
        let credential = entry.as_any().downcast_ref::<mock::Cred>().unwrap();
        credential.set_error(keyring_core::Error::NotSupportedByStore("locked".into()));
        let error = keyring.unwrap(ID, &stanza).unwrap_err();
        assert!(matches!(error, ProtectorError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("DBUS_SESSION_BUS_ADDRESS"), "{error}");
    }
}
