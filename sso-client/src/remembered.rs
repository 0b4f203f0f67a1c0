//! The server that `ssomanage -server` and `-serverall` remember: a file with one address, for the user
//! and for everybody on this machine (ESSO.md 1.6). Who calls is no part of it.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sso_core::connector;

use crate::{Environment, ProfileError};

/// No address is longer.
const LONGEST: usize = 2048;

/// Whom a server is remembered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RememberedFor {
    /// The user whose configuration folder it is.
    User,
    /// Everybody on this machine who does not remember another one.
    Machine,
}

impl Environment {
    /// The file, whether it exists or not; `None` when the environment names no folder for it.
    #[must_use]
    pub fn server_file(&self, whose: RememberedFor) -> Option<PathBuf> {
        let folder = match whose {
            RememberedFor::User => self.user_folder(),
            RememberedFor::Machine => self.machine_config.clone(),
        };
        folder.map(|folder| folder.join("server"))
    }

    /// The address that is remembered.
    ///
    /// # Errors
    /// [`ProfileError::Remembered`] when the file cannot be read or holds something else.
    pub fn remembered(&self, whose: RememberedFor) -> Result<Option<String>, ProfileError> {
        let Some(file) = self.server_file(whose) else { return Ok(None) };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(ProfileError::Remembered { file, problem: error.to_string() });
            }
        };
        match text.trim() {
            "" => Ok(None),
            address => match check(address) {
                Ok(()) => Ok(Some(address.to_owned())),
                Err(problem) => Err(ProfileError::Remembered { file, problem: problem.to_owned() }),
            },
        }
    }

    /// The address of the user's server, else that of the machine's.
    pub(crate) fn remembered_by_anybody(&self) -> Result<Option<String>, ProfileError> {
        match self.remembered(RememberedFor::User)? {
            Some(address) => Ok(Some(address)),
            None => self.remembered(RememberedFor::Machine),
        }
    }

    /// Remembers an address from now on.
    ///
    /// # Errors
    /// [`ProfileError::Remembered`] when it is no address, or the file cannot be written.
    pub fn remember(&self, whose: RememberedFor, address: &str) -> Result<PathBuf, ProfileError> {
        let missing = || ProfileError::Missing {
            what: "folder to remember the server in",
            option: "addr",
            variable: "HOME",
        };
        let file = self.server_file(whose).ok_or_else(missing)?;
        let failed = |problem: String| ProfileError::Remembered { file: file.clone(), problem };
        check(address).map_err(|problem| failed(problem.to_owned()))?;
        write(&file, address).map_err(|error| failed(error.to_string()))?;
        Ok(file)
    }
}

fn check(address: &str) -> Result<(), &'static str> {
    if address.len() > LONGEST || address.contains(char::is_whitespace) {
        return Err("not one address");
    }
    match connector::local_path(address) {
        Some(_) => Ok(()),
        None => connector::check_address(address),
    }
}

/// All of it or nothing, readable by everybody: another file is put in its place.
fn write(file: &Path, address: &str) -> io::Result<()> {
    use std::io::Write as _;
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".server.{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)
        .and_then(|mut new| {
            writeln!(new, "{address}")?;
            new.set_permissions(fs::Permissions::from_mode(0o644))?;
            new.sync_all()
        })
        .and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // It must not stay behind.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment {
            config_home: Some(folder.path().join("home")),
            machine_config: Some(folder.path().join("machine")),
            ..Environment::default()
        };
        let read = || environment.remembered_by_anybody().unwrap();
        assert_eq!(read(), None);
        environment.remember(RememberedFor::Machine, "https://all.example:7400").unwrap();
        assert_eq!(read().as_deref(), Some("https://all.example:7400"));
        for address in ["https://one.example:7400", "https://two.example:7400"] {
            let file = environment.remember(RememberedFor::User, address).unwrap();
            assert_eq!(file, folder.path().join("home/sso/server"));
            assert_eq!(read().as_deref(), Some(address));
        }
        let names = fs::read_dir(folder.path().join("home/sso")).unwrap();
        assert_eq!(names.count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let environment =
            Environment { config_home: Some(folder.path().into()), ..Environment::default() };
        for bad in ["", "server", "http://a.example:1", "https://a.example:1 https://b.example:1"] {
            assert!(environment.remember(RememberedFor::User, bad).is_err(), "{bad}");
        }
        let file = environment.server_file(RememberedFor::User).unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "nonsense\n").unwrap();
        let error = environment.remembered(RememberedFor::User).unwrap_err().to_string();
        assert!(error.contains("sso/server"), "{error}");
    }
}
