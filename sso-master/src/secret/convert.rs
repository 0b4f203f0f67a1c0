//! Messages of the wire as this program has them, and back.

use prost_types::Timestamp;
use sso_core::{key_ring::Generation, memory::LockedKey, secret::SecretText};
use sso_proto::{
    Reason, Refusal,
    v1::{self, GenerationState},
};
use time::OffsetDateTime;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    backup::{Locks, OFFICERS_MOST, Officer, Opener, SHARES_MOST},
    keystore::State,
};

/// A moment on the wire.
pub(super) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or_default(),
    }
}

/// The generation of this number.
pub(super) fn generation(number: u32) -> Result<Generation, Refusal> {
    Generation::new(number)
        .ok_or_else(|| Refusal::new(Reason::InvalidRequest, "generations begin with 1"))
}

/// A state on the wire.
pub(super) fn state(state: State) -> GenerationState {
    match state {
        State::Prepared => GenerationState::Prepared,
        State::Distributed => GenerationState::Distributed,
        State::Active => GenerationState::Active,
        State::Draining => GenerationState::Draining,
        State::Retired => GenerationState::Retired,
        State::Destroyed => GenerationState::Destroyed,
    }
}

/// How a backup is locked.
pub(super) fn locks(message: Option<v1::BackupLocks>) -> Result<Locks, Refusal> {
    let none = || Refusal::new(Reason::BackupLocksInvalid, "say how the backup is locked");
    let v1::BackupLocks { password, reminder, officers, shares, shares_needed } =
        message.ok_or_else(none)?;
    let password = SecretText::new(password);
    if officers.len() > OFFICERS_MOST {
        let message = format!("there are {} officers, more than {OFFICERS_MOST}", officers.len());
        return Err(Refusal::new(Reason::BackupLocksInvalid, message));
    }
    let officers = officers.into_iter().map(officer).collect::<Result<_, _>>()?;
    let shares = match (shares_needed, shares) {
        (_, 0) => None,
        (needed, total) => Some((count(needed)?, count(total)?)),
    };
    let locks =
        Locks { password: (!password.is_empty()).then_some(password), reminder, officers, shares };
    locks.check()?;
    Ok(locks)
}

fn officer(message: v1::OfficerKey) -> Result<Officer, Refusal> {
    let public_key = message.public_key.try_into().map_err(|_| {
        let message = format!("the public key of {:?} has not 32 bytes", message.name);
        Refusal::new(Reason::BackupLocksInvalid, message)
    })?;
    Ok(Officer { name: message.name, public_key })
}

fn count(number: u32) -> Result<u8, Refusal> {
    u8::try_from(number).map_err(|_| {
        Refusal::new(Reason::BackupLocksInvalid, format!("{number} shares: there are at most 255"))
    })
}

/// How a backup is opened: in exactly one way.
pub(super) fn opener(message: Option<v1::BackupOpener>) -> Result<Opener, Refusal> {
    let mut message = message.unwrap_or_default();
    let password = SecretText::new(std::mem::take(&mut message.password));
    let key = Zeroizing::new(std::mem::take(&mut message.backup_key));
    if message.shares.len() > SHARES_MOST {
        let what = format!("{} shares: there are at most {SHARES_MOST}", message.shares.len());
        message.shares.zeroize();
        return Err(Refusal::new(Reason::BackupSharesInvalid, what));
    }
    let shares: Vec<_> =
        std::mem::take(&mut message.shares).into_iter().map(SecretText::new).collect();
    match (password.is_empty(), key.is_empty(), shares.is_empty()) {
        (false, true, true) => Ok(Opener::Password(password)),
        (true, false, true) => {
            let key = LockedKey::from_bytes(&key)
                .map_err(|error| Refusal::new(Reason::InvalidRequest, error.to_string()))?;
            Ok(Opener::BackupKey(key))
        }
        (true, true, false) => Ok(Opener::Shares(shares)),
        _ => Err(Refusal::new(
            Reason::InvalidRequest,
            "give the password of the backup, its backup key or its shares: one of them",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_opened_in_one_way() {
        let with = |password: &str, key: &[u8], shares: &[&str]| {
            let shares = shares.iter().map(|&share| share.to_owned()).collect();
            let (password, backup_key) = (password.to_owned(), key.to_vec());
            opener(Some(v1::BackupOpener { password, backup_key, shares }))
        };
        assert!(matches!(with("x", &[], &[]), Ok(Opener::Password(_))));
        assert!(matches!(with("", &[1; 32], &[]), Ok(Opener::BackupKey(_))));
        assert!(matches!(with("", &[], &["s"]), Ok(Opener::Shares(_))));
        for bad in [
            with("", &[], &[]),
            with("x", &[1; 32], &[]),
            with("x", &[], &["s"]),
            with("", &[1; 31], &[]),
            opener(None),
        ] {
            assert_eq!(bad.unwrap_err().reason, Reason::InvalidRequest);
        }
        assert!(with("", &[], &["s"; 255]).is_ok());
        let many = with("", &[], &["s"; 256]).unwrap_err();
        assert_eq!(many.reason, Reason::BackupSharesInvalid);
    }

    #[test]
    fn locks_have_to_lock() {
        let locked = |locks: v1::BackupLocks| locks_reason(Some(locks));
        assert_eq!(locks_reason(None), Some(Reason::BackupLocksInvalid));
        assert_eq!(locked(v1::BackupLocks::default()), Some(Reason::BackupLocksInvalid));
        let password = || "correct horse".to_owned();
        assert_eq!(locked(v1::BackupLocks { password: password(), ..Default::default() }), None);
        let short = v1::BackupLocks { password: "short".to_owned(), ..Default::default() };
        assert_eq!(locked(short), Some(Reason::BackupPasswordLength));
        let shares = v1::BackupLocks { shares: 300, shares_needed: 2, ..Default::default() };
        assert_eq!(locked(shares), Some(Reason::BackupLocksInvalid));
        let officer = v1::OfficerKey { name: "o".to_owned(), public_key: vec![1; 31] };
        let officers = v1::BackupLocks { officers: vec![officer.clone()], ..Default::default() };
        assert_eq!(locked(officers), Some(Reason::BackupLocksInvalid));
        // Counted before any of them is looked at.
        let many = v1::BackupLocks { officers: vec![officer; 17], ..Default::default() };
        let refusal = locks(Some(many)).unwrap_err();
        assert_eq!(refusal.reason, Reason::BackupLocksInvalid);
        assert!(refusal.message.contains("17 officers"), "{}", refusal.message);
    }

    fn locks_reason(message: Option<v1::BackupLocks>) -> Option<Reason> {
        locks(message).err().map(|refusal| refusal.reason)
    }
}
