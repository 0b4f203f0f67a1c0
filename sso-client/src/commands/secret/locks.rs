//! How a new backup is locked: passwords, officers, shares, gathered and checked before anything is sent.

use std::path::{Path, PathBuf};

use sso_client::{
    SecretText,
    secret::{Locks, Officer, ShareCount},
};
use sso_core::{officer, settings::secret_file};
use zeroize::Zeroizing;

use super::{advice, args::LocksArgs};
use crate::{
    commands::read_file_of,
    failure::{Failure, file_name},
    output::Output,
    values::{ask, read_line},
};

const SHORTEST: usize = 7;
const LONGEST: usize = 256;
const REMINDER_LONGEST: usize = 512;
/// More than the public key of an officer has.
const KEY_FILE: usize = 4096;

impl LocksArgs {
    /// How many shares go where.
    pub(super) fn shares(&self) -> Option<(ShareCount, PathBuf)> {
        self.shares.zip(self.share_folder.clone())
    }

    /// Reads the files and asks for the password where nothing else opens the backup.
    pub(super) fn read(&self, output: &Output) -> Result<Locks, Failure> {
        let officers = self.officers.iter().map(|(name, file)| read_officer(name, file));
        let officers = officers.collect::<Result<Vec<_>, _>>()?;
        let mut locks = Locks {
            password: None,
            reminder: self.reminder.clone(),
            officers,
            shares: self.shares,
        };
        // The reminder alone first: nobody types a password for naught.
        check_reminder(&locks.reminder, None)?;
        locks.password = match &self.password_file {
            Some(file) => Some(read_password(file)?),
            None if locks.officers.is_empty() && locks.shares.is_none() => Some(ask_new()?),
            None => None,
        };
        check(&locks)?;
        if let Some(password) = &locks.password {
            advice::warn_about(password, &locks.reminder, output);
        }
        Ok(locks)
    }
}

/// A password from a private file, or from standard input for `-`.
pub(super) fn read_password(file: &Path) -> Result<SecretText, Failure> {
    if file == Path::new("-") {
        return read_line();
    }
    let bytes = secret_file(file).map_err(|error| Failure::Settings(error.to_string()))?;
    SecretText::from_utf8(&bytes).map_err(|_| Failure::File {
        file: file_name(file),
        message: "is not text in UTF-8".to_owned(),
    })
}

fn ask_new() -> Result<SecretText, Failure> {
    ask("Password of the backup", true, "--password-file FILE names a private file with it")
}

fn read_officer(name: &str, file: &Path) -> Result<Officer, Failure> {
    let bytes = read_file_of(file, KEY_FILE)?;
    let malformed = |message: String| Failure::File { file: file_name(file), message };
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("is not text".to_owned()))?;
    let public_key = officer::parse_public(text).map_err(|error| malformed(error.to_string()))?;
    Ok(Officer { name: name.to_owned(), public_key })
}

/// Refuses what the master would refuse.
pub(super) fn check(locks: &Locks) -> Result<(), Failure> {
    if let Some(password) = &locks.password {
        // Expose: to count its characters.
        let count = password.expose().chars().count();
        if !(SHORTEST..=LONGEST).contains(&count) {
            return Err(Failure::usage(format!(
                "the password has {count} characters; it must have {SHORTEST} to {LONGEST}"
            )));
        }
    }
    check_reminder(&locks.reminder, locks.password.as_ref())
}

fn check_reminder(reminder: &str, password: Option<&SecretText>) -> Result<(), Failure> {
    if reminder.chars().count() > REMINDER_LONGEST {
        return Err(Failure::usage("the reminder has more than 512 characters"));
    }
    if reminder.chars().any(char::is_control) {
        return Err(Failure::usage("the reminder must be one line without control characters"));
    }
    let gives_away = password.is_some_and(|password| {
        // Expose: to compare it with what everybody may read.
        let password = Zeroizing::new(password.expose().to_lowercase());
        reminder.to_lowercase().contains(password.as_str())
    });
    if gives_away {
        return Err(Failure::usage(
            "the reminder contains the password, and everybody who has the file can read it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_reminders_keep_the_rules() {
        let locks = |password: &str, reminder: &str| Locks {
            password: Some(SecretText::new(password.to_owned())),
            reminder: reminder.to_owned(),
            ..Locks::default()
        };
        for (locks, why) in [
            (locks("sixsix", ""), "6 characters"),
            (locks(&"x".repeat(257), ""), "257 characters"),
            (locks("correct horse", &"x".repeat(513)), "512"),
            (locks("correct horse", "a\nb"), "one line"),
            (locks("correct horse", "it is Correct Horse"), "contains the password"),
        ] {
            let failure = check(&locks).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message().contains(why), "{}", failure.message());
        }
        assert!(check(&locks(&"ä".repeat(256), &"ö".repeat(512))).is_ok());
    }

    #[test]
    fn a_password_file_must_be_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "correct horse\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_password(&file).unwrap_err().exit_code(), 64);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        // Expose: compared with what the test wrote.
        assert_eq!(read_password(&file).unwrap().expose(), "correct horse");
    }
}
