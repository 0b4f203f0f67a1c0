//! Everything that ends the program, and with which exit code.

use std::{io, net::SocketAddr};

use sso_core::{
    exit::Exit, memory::HardenError, settings::SettingsError, telemetry::TelemetryError,
    tls::TlsError,
};

use sso_protector::{ProtectorError, prompt::PromptError};

use crate::{
    backup::BackupError, file::FileError, init::InitError, join::JoinError,
    keystore::KeystoreError, protectors::ProtectorsError, restore::RestoreError,
    stanzas::NotProved,
};

/// Why the program ends without having done what it was to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// The settings, or a secret they name.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The keystore.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A protector.
    #[error(transparent)]
    Protector(#[from] ProtectorError),
    /// The protectors of a keystore are not changed.
    #[error(transparent)]
    Protectors(#[from] ProtectorsError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A passphrase that nobody gave.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Making a keystore.
    #[error(transparent)]
    Init(#[from] InitError),
    /// Making the keystore of a standby.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The socket for administrators.
    #[error(transparent)]
    Local(#[from] sso_core::local::LocalError),
    /// Making a keystore from a backup.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The keystore that was made.
    #[error(transparent)]
    NotProved(#[from] NotProved),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Logging.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The process cannot be closed to readers.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// An address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The runtime does not start or a listener failed.
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
}

impl MasterError {
    /// The exit code that goes with it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) | Self::Tls(_) | Self::Telemetry(_) | Self::Prompt(_) => {
                Exit::Settings
            }
            Self::Keystore(error) => keystore(error),
            Self::Protector(error) => protector(error),
            Self::Protectors(error) => protectors(error),
            Self::Backup(error) => backup(error),
            Self::Init(InitError::NoBackup | InitError::SamePath) => Exit::Usage,
            Self::Restore(error) => restore(error),
            Self::Join(JoinError::Refused(_)) => Exit::Refused,
            Self::Join(JoinError::NoPrimary(_))
            | Self::NotProved(_)
            | Self::Local(_)
            | Self::Harden(_)
            | Self::Listen { .. }
            | Self::Server(_) => Exit::Unavailable,
        }
    }
}

fn restore(error: &RestoreError) -> Exit {
    match error {
        RestoreError::Newer { .. } | RestoreError::Foreign { .. } | RestoreError::Unusable(_) => {
            Exit::Refused
        }
        RestoreError::Aside { .. } => Exit::Unavailable,
    }
}

fn keystore(error: &KeystoreError) -> Exit {
    match error {
        KeystoreError::File(error) => file(error),
        KeystoreError::Format(_)
        | KeystoreError::Damaged { .. }
        | KeystoreError::Foreign { .. }
        | KeystoreError::KeyRing(_) => Exit::Settings,
        KeystoreError::Held { .. } => Exit::Refused,
        KeystoreError::Key(_)
        | KeystoreError::Seal(_)
        | KeystoreError::Replaced(_)
        | KeystoreError::NotProved(_) => Exit::Unavailable,
    }
}

fn protector(error: &ProtectorError) -> Exit {
    match error {
        ProtectorError::WrongPassphrase(_)
        | ProtectorError::WrongKeyFile { .. }
        | ProtectorError::WrongPin { .. } => Exit::Denied,
        ProtectorError::EntryMissing { .. }
        | ProtectorError::Unavailable { .. }
        | ProtectorError::Token { .. }
        | ProtectorError::Key(_)
        | ProtectorError::Seal(_) => Exit::Unavailable,
        ProtectorError::Foreign { .. }
        | ProtectorError::OtherKey { .. }
        | ProtectorError::NoStanza { .. }
        | ProtectorError::Damaged { .. }
        | ProtectorError::NotAuthentic { .. }
        | ProtectorError::KeyFileLength { .. }
        | ProtectorError::NotBuilt(_)
        | ProtectorError::Stretch(_)
        | ProtectorError::Prompt(_)
        | ProtectorError::Settings(_) => Exit::Settings,
    }
}

fn protectors(error: &ProtectorsError) -> Exit {
    match error {
        ProtectorsError::Owner { .. } => Exit::Denied,
        ProtectorsError::NotInSettings(_) => Exit::Settings,
        ProtectorsError::NotThere { .. }
        | ProtectorsError::Several { .. }
        | ProtectorsError::Last(_)
        | ProtectorsError::Forgetful(_)
        | ProtectorsError::NoOther { .. }
        | ProtectorsError::Changed => Exit::Refused,
        ProtectorsError::NotProved(_) => Exit::Unavailable,
    }
}

fn backup(error: &BackupError) -> Exit {
    match error {
        BackupError::File(error) => file(error),
        BackupError::WrongPassword { .. }
        | BackupError::WrongKey(_)
        | BackupError::NoLock { .. }
        | BackupError::Shares(_) => Exit::Denied,
        BackupError::Foreign(_) => Exit::Refused,
        BackupError::Format(_)
        | BackupError::Locks(_)
        | BackupError::Reminder(_)
        | BackupError::Password(_)
        | BackupError::Stretch(_)
        | BackupError::KeyRing(_) => Exit::Settings,
        BackupError::Key(_) | BackupError::Seal(_) | BackupError::Different => Exit::Unavailable,
    }
}

fn file(error: &FileError) -> Exit {
    match error {
        FileError::Exists(_) => Exit::Refused,
        FileError::Missing(_) | FileError::Read { .. } | FileError::Lax { .. } => Exit::Settings,
        FileError::Write { .. } => Exit::Unavailable,
    }
}
