//! Everything that ends the program, and with which exit code.

use std::{io, net::SocketAddr};

use sso_core::{
    exit::Exit, memory::HardenError, settings::SettingsError, telemetry::TelemetryError,
    tls::TlsError,
};

use crate::{
    backup::BackupError, file::FileError, init::InitError, keystore::KeystoreError,
    prompt::PromptError, protector::ProtectorError,
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
    /// A backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A passphrase that nobody gave.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Making a keystore.
    #[error(transparent)]
    Init(#[from] InitError),
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
            Self::Backup(error) => backup(error),
            Self::Init(error) => match error {
                InitError::SamePath => Exit::Usage,
                InitError::NotUnlocked => Exit::Unavailable,
            },
            Self::Harden(_) | Self::Listen { .. } | Self::Server(_) => Exit::Unavailable,
        }
    }
}

fn keystore(error: &KeystoreError) -> Exit {
    match error {
        KeystoreError::File(error) => file(error),
        KeystoreError::Format(_)
        | KeystoreError::Damaged { .. }
        | KeystoreError::Foreign { .. }
        | KeystoreError::KeyRing(_) => Exit::Settings,
        KeystoreError::Key(_) | KeystoreError::Seal(_) => Exit::Unavailable,
    }
}

fn protector(error: &ProtectorError) -> Exit {
    match error {
        ProtectorError::WrongPassphrase(_) => Exit::Denied,
        ProtectorError::EntryMissing { .. }
        | ProtectorError::Unavailable { .. }
        | ProtectorError::Key(_)
        | ProtectorError::Seal(_) => Exit::Unavailable,
        ProtectorError::Foreign { .. }
        | ProtectorError::OtherKey { .. }
        | ProtectorError::NoStanza { .. }
        | ProtectorError::Damaged { .. }
        | ProtectorError::NotBuilt(_)
        | ProtectorError::Stretch(_)
        | ProtectorError::Prompt(_)
        | ProtectorError::Settings(_) => Exit::Settings,
    }
}

fn backup(error: &BackupError) -> Exit {
    match error {
        BackupError::File(error) => file(error),
        BackupError::WrongPassword { .. } => Exit::Denied,
        BackupError::Format(_)
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
