//! Proofs that whoever made a backup had its generations.
//!
//! An officer's envelope needs the officer's public key and nothing else, so anybody can make a file
//! that opens with the private one: the header is bound to a backup key that its maker has chosen. A
//! backup therefore has a proof for each generation in it: a MAC of the header, keyed by that
//! generation. Who holds one of the generations sees that the file was made by somebody who had it.
//!
//! Passwords and shares need no proof: who does not know them makes no file that opens with them.

use sso_core::{
    derive::{DerivedKey, Fingerprint, derive},
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    secret::SecretBytes,
};
use sso_protector::encoding::{Base64, canonical as spelled};

use super::{
    Backup, BackupError, Opener,
    format::{Body, Header},
};
use crate::{custody::Unlocked, keystore::State};

/// What the key of a generation gives here and nowhere else.
const PURPOSE: &str = "backup proof";

impl Header {
    /// The header with a proof for every generation it names.
    pub(super) fn proved(mut self, ring: &KeyRing) -> Self {
        let spelled = self.without_proofs();
        let keys = self.generations.iter().filter_map(|it| ring.key(it.generation));
        // Expose: a proof tells nothing of the key, and is there to be read.
        self.proofs = keys.map(|key| Base64(proof(key, &spelled).expose().to_vec())).collect();
        self
    }

    /// What the proofs are made over.
    fn without_proofs(&self) -> Vec<u8> {
        spelled(&Self { proofs: Vec::new(), ..self.clone() })
    }
}

/// The MAC is the expansion of HKDF itself: HMAC-SHA256 of the purpose and the header.
fn proof(key: &LockedKey, header: &[u8]) -> DerivedKey {
    derive(key, PURPOSE, &[header])
}

impl Backup {
    /// Whether somebody made it who had a generation of `ring`.
    #[must_use]
    pub fn is_proved_by(&self, ring: &KeyRing) -> bool {
        let header = match &self.body {
            Body::V1(_) => return false,
            Body::V2(header) => header,
        };
        let spelled = header.without_proofs();
        header.generations.iter().zip(&header.proofs).any(|(named, found)| {
            let own = ring.fingerprint(named.generation) == Some(named.fingerprint);
            let key = ring.key(named.generation).filter(|_| own);
            key.is_some_and(|key| {
                // Expose: into a buffer that wipes itself, because that compares in constant time.
                let expected = SecretBytes::new(proof(key, &spelled).expose().to_vec());
                expected == SecretBytes::new(found.0.clone())
            })
        })
    }

    /// Refuses to put keys into the keystore of `current` that anybody could have made up: those of a
    /// backup that an officer's key opened, that has no proof by a generation which is held, and that
    /// holds more than what was once destroyed here.
    ///
    /// # Errors
    /// Names the generations of which nobody knows whence they come.
    pub(crate) fn require_origin(
        &self,
        opener: &Opener,
        current: &Unlocked,
    ) -> Result<(), BackupError> {
        match opener {
            Opener::Password(_) | Opener::Shares(_) => return Ok(()),
            Opener::BackupKey(_) => {}
        }
        if self.is_proved_by(&current.ring) {
            return Ok(());
        }
        let held = |generation: Generation| current.ring.fingerprint(generation);
        let unknown = self.generations().filter(|(generation, fingerprint)| {
            let destroyed = current.entry(*generation).is_some_and(|own| {
                own.state == State::Destroyed && own.fingerprint == *fingerprint
            });
            !destroyed && held(*generation) != Some(*fingerprint)
        });
        let unknown: Vec<_> = unknown.map(named).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(BackupError::Foreign(format!(
            "it was opened with an officer's key, and nothing proves that this system made it: \
             anyone who has the officer's public key can make such a file. This keystore does not \
             know {}; nothing was restored. Open it with its password or its shares; or compare \
             these fingerprints with those that you kept, stop the master and run \
             `sso-master restore`",
            unknown.join(", ")
        )))
    }

    /// What somebody has to hear who restores without a keystore that could prove where the backup
    /// comes from; `None` when `opener` proves it.
    #[must_use]
    pub fn warning(&self, opener: &Opener) -> Option<String> {
        match opener {
            Opener::Password(_) | Opener::Shares(_) => return None,
            Opener::BackupKey(_) => {}
        }
        let generations: Vec<_> = self.generations().map(named).collect();
        Some(format!(
            "nothing here proves who made this backup: anyone who has the officer's public key can \
             make one that opens with the private key. Compare with the fingerprints that you kept \
             before you start the master: {}",
            generations.join(", ")
        ))
    }
}

fn named((generation, fingerprint): (Generation, Fingerprint)) -> String {
    format!("generation {generation} (fingerprint {fingerprint})")
}

#[cfg(test)]
mod tests;
