//! The programs of the system, found beside one another.

use std::path::{Path, PathBuf};

use super::DevelopmentError;

/// Where the executables are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder they share.
    pub folder: PathBuf,
    /// `sso-master`.
    pub master: PathBuf,
    /// `sso-server`.
    pub server: PathBuf,
    /// `sso`.
    pub client: PathBuf,
}

impl Programs {
    /// The programs in a folder.
    ///
    /// # Errors
    /// [`DevelopmentError::ProgramsMissing`] names every one that is not there.
    pub fn in_folder(folder: &Path) -> Result<Self, DevelopmentError> {
        let found = Self {
            folder: folder.to_owned(),
            master: folder.join("sso-master"),
            server: folder.join("sso-server"),
            client: folder.join("sso"),
        };
        let names: Vec<_> =
            [("sso-master", &found.master), ("sso-server", &found.server), ("sso", &found.client)]
                .into_iter()
                .filter_map(|(name, path)| (!path.is_file()).then_some(name))
                .collect();
        if names.is_empty() {
            return Ok(found);
        }
        Err(DevelopmentError::ProgramsMissing { names, folder: folder.to_owned() })
    }

    /// The programs beside the running executable.
    ///
    /// # Errors
    /// As [`Programs::in_folder`].
    pub fn beside_this_one() -> Result<Self, DevelopmentError> {
        let own = std::env::current_exe()
            .map_err(|source| DevelopmentError::System { what: "path of this program", source })?;
        Self::in_folder(own.parent().unwrap_or(Path::new("/")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sso"), "").unwrap();
        let error = Programs::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().starts_with("sso-master and sso-server not found"), "{error}");
    }
}
