//! Passphrases: from a private file, from standard input or asked for, never from the command line.

use std::path::{Path, PathBuf};

use clap::Args;
use sso_client::{SecretText, certificates::CertificateError};
use sso_core::settings::secret_file;

use crate::{
    failure::{Failure, file_name},
    values::{ask, read_line},
};

/// How the private key that is made is protected, beyond its mode.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Encrypt the private key (PKCS #8, AES-256); asks for the passphrase
    #[arg(long)]
    encrypt_key: bool,
    /// Private file with the passphrase of the private key, '-' for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// The passphrase of a key that is made; `None` for a key that is not encrypted.
    pub(super) fn new_passphrase(&self) -> Result<Option<SecretText>, Failure> {
        new_passphrase(self.encrypt_key, self.passphrase_file.as_deref(), "--passphrase-file")
    }
}

/// How a private key that was read is protected where it is written.
#[derive(Debug, Args)]
pub(super) struct NewKeyArgs {
    /// Encrypt the private key that is written (PKCS #8, AES-256); asks for the passphrase
    #[arg(long)]
    encrypt_key: bool,
    /// Private file with the passphrase of the key that is written
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
}

impl NewKeyArgs {
    pub(super) fn new_passphrase(&self) -> Result<Option<SecretText>, Failure> {
        let file = self.new_passphrase_file.as_deref();
        new_passphrase(self.encrypt_key, file, "--new-passphrase-file")
    }
}

fn new_passphrase(
    encrypt: bool,
    file: Option<&Path>,
    option: &str,
) -> Result<Option<SecretText>, Failure> {
    match (file, encrypt) {
        (Some(file), _) => read(file).map(Some),
        (None, true) => ask_new("Passphrase for the private key", option).map(Some),
        (None, false) => Ok(None),
    }
}

/// A passphrase that is given for the first time: from the file, or asked for twice.
pub(super) fn read_or_ask_new(
    file: Option<&Path>,
    label: &str,
    option: &str,
) -> Result<SecretText, Failure> {
    match file {
        Some(file) => read(file),
        None => ask_new(label, option),
    }
}

fn ask_new(label: &str, option: &str) -> Result<SecretText, Failure> {
    ask(label, true, &format!("{option} FILE names a private file with it"))
}

/// From a private file, or from standard input for `-`.
pub(super) fn read(file: &Path) -> Result<SecretText, Failure> {
    if file == Path::new("-") {
        return read_line();
    }
    let bytes = secret_file(file).map_err(|error| Failure::Settings(error.to_string()))?;
    SecretText::from_utf8(&bytes).map_err(|_| Failure::File {
        file: file_name(file),
        message: "is not text in UTF-8".to_owned(),
    })
}

/// Opens something that may be encrypted: with the passphrase of the file, else without one, else with
/// one that is asked for.
pub(super) fn open<T>(
    file: Option<&Path>,
    option: &str,
    open: impl Fn(Option<&SecretText>) -> Result<T, CertificateError>,
) -> Result<T, Failure> {
    if let Some(file) = file {
        return Ok(open(Some(&read(file)?))?);
    }
    match open(None) {
        Err(CertificateError::PassphraseMissing(path)) => {
            let label = format!("Passphrase of {}", path.display());
            let hint = format!("{option} FILE names a private file with it");
            Ok(open(Some(&ask(&label, false, &hint)?))?)
        }
        opened => Ok(opened?),
    }
}
