//! Callers by the tokens they came with: a token is verified once, not with every request.
//!
//! What is remembered counts only while everything it was made from is the same: the very keys of the
//! issuer, the groups, and the time of the token. So a key that was taken away, a token that is over and a
//! changed group end it at once. The token itself is not kept, only its SHA-256.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;

use super::{jwks::KeySet, token::TokenSource};
use crate::model::Caller;

/// Parts, each with a lock of its own.
const PARTS: usize = 16;
/// Tokens remembered in each part.
const MOST: usize = 1024;

/// What a token is known by here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// A caller whose token was verified, and with what.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) source: Arc<TokenSource>,
    pub(super) keys: Arc<KeySet>,
    /// Of the groups.
    pub(super) generation: u64,
    pub(super) from: OffsetDateTime,
    pub(super) until: OffsetDateTime,
    pub(super) caller: Arc<Caller>,
}

impl Verified {
    fn holds(&self, generation: u64, now: OffsetDateTime) -> bool {
        // A clock that was set back may show a time before that of the token.
        self.generation == generation
            && (self.from..self.until).contains(&now)
            && self.source.has(&self.keys)
    }
}

/// Callers by their tokens.
#[derive(Default)]
pub(super) struct Remembered([Mutex<HashMap<Fingerprint, Verified>>; PARTS]);

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Remembered {
    /// The caller with this token, if nothing has changed since it was verified.
    pub(super) fn find(
        &self,
        print: &Fingerprint,
        generation: u64,
        now: OffsetDateTime,
    ) -> Option<Arc<Caller>> {
        let part = self.part(print)?;
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let verified = part.get(print)?;
        if verified.holds(generation, now) {
            return Some(Arc::clone(&verified.caller));
        }
        part.remove(print);
        None
    }

    pub(super) fn keep(&self, print: Fingerprint, verified: Verified) {
        let Some(part) = self.part(&print) else { return };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= MOST && !part.contains_key(&print) {
            let now = verified.from;
            part.retain(|_, known| known.until > now);
            if part.len() >= MOST {
                // Any: tokens have no order, and whoever comes again is verified again.
                let other = part.keys().next().copied();
                other.map(|other| part.remove(&other));
            }
        }
        part.insert(print, verified);
    }

    fn part(&self, print: &Fingerprint) -> Option<&Mutex<HashMap<Fingerprint, Verified>>> {
        self.0.get(usize::from(print.0[0]) % PARTS)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().unwrap().len()).sum()
    }
}
