//! `sso secret officer-key`: the key pair of an officer of backups.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sso_core::{memory::LockedKey, officer, settings::write_private};
use zeroize::Zeroizing;

use super::made::check_free;
use crate::{failure::Failure, output::Output};

#[derive(Debug, Serialize)]
struct OfficerDocument<'a> {
    private: &'a Path,
    public: &'a Path,
    public_key: String,
}

/// Makes the pair and writes both files, or none.
pub(super) fn make(file: &Path, output: &Output) -> Result<(), Failure> {
    let mut public_file = file.as_os_str().to_owned();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    check_free(file)?;
    check_free(&public_file)?;
    let private = LockedKey::generate().map_err(|error| Failure::Unavailable(error.to_string()))?;
    let public =
        officer::public_key(&private).map_err(|error| Failure::Unavailable(error.to_string()))?;
    let public = officer::public_text(&public);
    let failed = |path: &Path, error: io::Error| Failure::io(path.display().to_string(), error);
    // Expose: into a file that only its owner may read.
    let line = Zeroizing::new(format!("{}\n", officer::private_text(&private).expose()));
    write_private(file, line.as_bytes(), false).map_err(|error| failed(file, error))?;
    if let Err(error) = write_private(&public_file, format!("{public}\n").as_bytes(), false) {
        let _ = fs::remove_file(file);
        return Err(failed(&public_file, error));
    }
    let document = OfficerDocument { private: file, public: &public_file, public_key: public };
    output.document(&document, |output| {
        output.pairs(vec![
            ("private key", file.display().to_string()),
            ("public key", public_file.display().to_string()),
            ("its text", document.public_key.clone()),
        ])
    })?;
    output.note("keep the private file where the officer alone gets at it, and a copy elsewhere");
    Ok(())
}
