//! How a backup is locked. A random *backup key* wraps the keys of the backup, and each lock gives
//! the backup key back to somebody else: to whoever knows the password, to one officer with a
//! private key, or to enough holders of shares together.

use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};
use sso_core::{
    memory::{KEY_BYTES, KeyError, LockedKey},
    passphrase::{Argon2Params, SALT_BYTES, canonical, stretch},
    secret::SecretText,
    transit::{TransitError, officer_context, seal_to},
    wrapping::{UnwrapError, WrappingKey},
};
use sso_protector::{encoding::Base64, prompt::check_length};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{BackupError, PASSWORD, REMINDER_LONGEST, shares};
use crate::file::FormatError;

/// The most officers of a backup.
pub const OFFICERS_MOST: usize = 16;
/// The most shares of a backup.
pub const SHARES_MOST: usize = 255;
/// The most characters of an officer's name.
const NAME_LONGEST: usize = 128;

/// Who can open a backup that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Whoever knows this, 7 to 256 characters.
    pub password: Option<SecretText>,
    /// Helps to remember the password; one line that anyone can read, at most 512 characters.
    pub reminder: String,
    /// Each of them alone, with the private key; at most 16.
    pub officers: Vec<Officer>,
    /// How many shares together, and how many there are.
    pub shares: Option<(u8, u8)>,
}

/// Somebody who can open backups with a private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Officer {
    /// Who it is, for those who look for the right key.
    pub name: String,
    /// X25519.
    pub public_key: [u8; KEY_BYTES],
}

impl Locks {
    /// A password and nothing else.
    #[must_use]
    pub fn password(password: SecretText, reminder: &str) -> Self {
        Self { password: Some(password), reminder: reminder.to_owned(), ..Self::default() }
    }

    /// Refuses what makes no usable lock; to be called before anybody is asked for anything.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(&self) -> Result<(), BackupError> {
        let Self { password, reminder, officers, shares } = self;
        if password.is_none() && officers.is_empty() && shares.is_none() {
            let what = "name a password, officers or shares: without them nobody could open it";
            return Err(BackupError::Locks(what.into()));
        }
        if let Some(password) = password {
            check_password(password)?;
        }
        check_reminder(reminder, password.as_ref())?;
        if officers.len() > OFFICERS_MOST {
            let what = format!("there are {} officers, more than {OFFICERS_MOST}", officers.len());
            return Err(BackupError::Locks(what));
        }
        for (at, officer) in officers.iter().enumerate() {
            officer.check()?;
            for earlier in officers.iter().take(at) {
                if earlier.name == officer.name || earlier.public_key == officer.public_key {
                    let what = format!("the officer {:?} is there twice", officer.name);
                    return Err(BackupError::Locks(what));
                }
            }
        }
        match shares {
            Some((needed, total)) if *needed < 2 || needed > total => Err(BackupError::Locks(
                format!("{needed} of {total} shares: write 2 or more, of at most 255"),
            )),
            _ => Ok(()),
        }
    }
}

impl Officer {
    fn check(&self) -> Result<(), BackupError> {
        let length = self.name.chars().count();
        if self.name.trim().is_empty()
            || length > NAME_LONGEST
            || self.name.chars().any(char::is_control)
        {
            let what = format!("an officer's name is one line of 1 to {NAME_LONGEST} characters");
            return Err(BackupError::Locks(what));
        }
        Ok(())
    }
}

/// One lock in the clear header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Lock {
    /// The backup key, wrapped under the stretched password.
    Password { work: Argon2Params, salt: Base64, wrapped: Base64 },
    /// The backup key in an envelope for one officer.
    Officer { name: String, public_key: Base64, envelope: Base64 },
    /// The backup key is split into shares, which are not in the file.
    Shares { needed: u8, total: u8 },
}

/// The locks of a new backup with the id `backup`, and the texts of its shares.
pub(super) fn lock(
    work: Argon2Params,
    keystore: Uuid,
    backup: Uuid,
    key: &LockedKey,
    locks: &Locks,
) -> Result<(Vec<Lock>, Vec<SecretText>), BackupError> {
    locks.check()?;
    let mut made = Vec::new();
    if let Some(password) = &locks.password {
        let mut salt = [0; SALT_BYTES];
        SysRng.try_fill_bytes(&mut salt).map_err(|error| KeyError::Random(error.to_string()))?;
        let wrapping = WrappingKey::new(&stretch(&canonical(password), &salt, &work)?);
        // Expose: into the wrapping, for the file.
        let wrapped = wrapping.wrap(&password_context(&backup), key.expose())?;
        made.push(Lock::Password { work, salt: Base64(salt.into()), wrapped: Base64(wrapped) });
    }
    for officer in &locks.officers {
        // Expose: into the envelope, for the file.
        let envelope =
            seal_to(&officer.public_key, &officer_context(backup.as_bytes()), key.expose());
        let envelope = envelope.map_err(|error| match error {
            TransitError::Seal(error) => BackupError::Seal(error),
            TransitError::KeyPair
            | TransitError::PublicKey
            | TransitError::Malformed(_)
            | TransitError::NotAuthentic => {
                BackupError::Locks(format!("the officer {:?}: {error}", officer.name))
            }
        })?;
        made.push(Lock::Officer {
            name: officer.name.clone(),
            public_key: Base64(officer.public_key.into()),
            envelope: Base64(envelope),
        });
    }
    let mut texts = Vec::new();
    if let Some((needed, total)) = locks.shares {
        texts = shares::split(keystore, backup, key, needed, total)?;
        made.push(Lock::Shares { needed, total });
    }
    Ok((made, texts))
}

/// The backup key that the password gives back; `None` when it is another password.
pub(super) fn open_password(
    backup: Uuid,
    password: &SecretText,
    work: &Argon2Params,
    salt: &Base64,
    wrapped: &Base64,
) -> Result<Option<LockedKey>, BackupError> {
    let wrapping = stretched(password, work, salt)?;
    match wrapping.unwrap(&password_context(&backup), &wrapped.0) {
        // Expose: from the wrapping into locked memory.
        Ok(key) => Ok(Some(LockedKey::from_bytes(key.expose())?)),
        Err(UnwrapError::NotAuthentic) => Ok(None),
        Err(UnwrapError::Malformed(what)) => Err(FormatError::damaged(what).into()),
    }
}

/// What wraps under the stretched password. Refuses greedy work before any of it is done.
pub(super) fn stretched(
    password: &SecretText,
    work: &Argon2Params,
    salt: &Base64,
) -> Result<WrappingKey, BackupError> {
    let salt = salt.0.as_slice().try_into();
    let salt = salt.map_err(|_| FormatError::damaged("its salt"))?;
    Ok(WrappingKey::new(&stretch(&canonical(password), salt, work)?))
}

fn password_context(backup: &Uuid) -> [&[u8]; 2] {
    [b"backup password", backup.as_bytes()]
}

/// Refuses passwords that are too short or too long.
///
/// # Errors
/// Says how many characters there are.
pub fn check_password(password: &SecretText) -> Result<(), BackupError> {
    Ok(check_length(PASSWORD, password)?)
}

/// A reminder is one line of at most 512 characters that does not give the password away.
///
/// # Errors
/// Says what is wrong.
pub fn check_reminder(reminder: &str, password: Option<&SecretText>) -> Result<(), BackupError> {
    if reminder.chars().count() > REMINDER_LONGEST {
        return Err(BackupError::Reminder("must have at most 512 characters"));
    }
    if reminder.chars().any(char::is_control) {
        return Err(BackupError::Reminder("must be one line without control characters"));
    }
    let gives_away = |password: &SecretText| {
        // Expose: to compare it with what anyone may read.
        reminder.to_lowercase().contains(&*Zeroizing::new(password.expose().to_lowercase()))
    };
    if password.is_some_and(gives_away) {
        return Err(BackupError::Reminder(
            "contains the password, and anyone who has the file can read it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn officer(name: &str, byte: u8) -> Officer {
        Officer { name: name.to_owned(), public_key: [byte; 32] }
    }

    fn text(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn locks_keep_the_rules() {
        let password = |it: &str, reminder: &str| Locks::password(text(it), reminder);
        let officers = |officers: Vec<Officer>| Locks { officers, ..Locks::default() };
        let shares = |needed, total| Locks { shares: Some((needed, total)), ..Locks::default() };
        let many = (0..17).map(|at| officer(&format!("officer {at}"), at)).collect::<Vec<_>>();
        for (locks, why) in [
            (Locks::default(), "nobody could open it"),
            (password("short", ""), "7 to 256"),
            (password(&"x".repeat(257), ""), "7 to 256"),
            (password("correct horse", &"x".repeat(513)), "512"),
            (password("correct horse", "two\nlines"), "one line"),
            (password("correct horse", "it is Correct Horse!"), "contains the password"),
            (Locks { reminder: "two\nlines".into(), ..shares(2, 3) }, "one line"),
            (shares(1, 3), "1 of 3"),
            (shares(0, 0), "0 of 0"),
            (shares(4, 3), "4 of 3"),
            (officers(many.clone()), "17 officers"),
            (officers(vec![officer("Ada", 1), officer("Ada", 2)]), "\"Ada\" is there twice"),
            (officers(vec![officer("Ada", 1), officer("Bob", 1)]), "\"Bob\" is there twice"),
            (officers(vec![officer(" ", 1)]), "1 to 128"),
            (officers(vec![officer("a\tb", 1)]), "one line"),
        ] {
            let error = locks.check().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let most = many.into_iter().take(16).collect();
        for locks in [password("seven c", &"ä".repeat(512)), shares(2, 255), officers(most)] {
            locks.check().unwrap();
        }
    }

    #[test]
    fn an_officer_without_a_usable_key_is_named() {
        let locks = Locks { officers: vec![officer("Ada", 0)], ..Locks::default() };
        let key = LockedKey::generate().unwrap();
        let made = lock(Argon2Params::FLOOR, Uuid::nil(), Uuid::nil(), &key, &locks);
        let error = made.unwrap_err().to_string();
        assert!(error.contains("\"Ada\"") && error.contains("X25519"), "{error}");
    }
}
