//! One change of a keystore in the making: the rules of the life of a generation.
//!
//! ```text
//! prepare ─► prepared ─► distribute ─► distributed ─► activate ─► active
//!               │ record_backup, or there is no distributing         │ the next one is activated
//!               ▼                                                    ▼
//! destroyed ◄─ destroy ◄─ retired ◄──────── retire ◄──────────── draining
//!      └────── restore ──────▲
//! ```
//!
//! A method that refuses has changed nothing.

mod adopt;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use sso_core::{
    derive::Fingerprint,
    key_ring::{Generation, KeyRing},
    memory::LockedKey,
    revocations::Revocations,
    wrapping::WrappingKey,
};
use sso_proto::{Reason, Refusal};
use time::OffsetDateTime;

pub use self::adopt::Adopted;
pub(super) use self::adopt::taken_over;
use super::{
    GenerationEntry, Keystore, State,
    format::{Header, NAME_BYTES_MAX, is_name},
    whole_seconds,
};
use crate::TOOL;

/// Epochs stay below this, because databases keep them with a sign.
const EPOCH_END: u64 = i64::MAX as u64;

/// What came of a change.
#[derive(Debug)]
pub struct Edited<T> {
    /// What the change gave.
    pub value: T,
    /// The keystore with the change; `None` when there is nothing to write.
    pub keystore: Option<Keystore>,
    /// The keystore of before holds what the new one does not say: it is to be kept aside.
    pub keep_aside: bool,
}

/// One change in the making.
#[derive(Debug)]
pub struct Draft<'a> {
    before: &'a Header,
    header: Header,
    wrapping: &'a WrappingKey,
    /// The change of the whole keystore that was taken over, which is not counted once more.
    adopted: bool,
    keep_aside: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn begin(before: &'a Header, wrapping: &'a WrappingKey) -> Self {
        let header = before.clone();
        Self { before, header, wrapping, adopted: false, keep_aside: false }
    }

    /// The header with its change counted, and whether the one of before is kept aside; `None` when
    /// nothing changed.
    pub(super) fn finish(mut self) -> Result<Option<(Header, bool)>, Refusal> {
        if self.header == *self.before {
            return Ok(None);
        }
        self.header.tool = TOOL.to_owned();
        if !self.adopted {
            self.header.change = self.next_change()?;
        }
        self.header.check().map_err(internal)?;
        Ok(Some((self.header, self.keep_aside)))
    }

    /// What is known of each generation, as this change leaves it.
    #[must_use]
    pub fn generations(&self) -> &[GenerationEntry] {
        &self.header.generations
    }

    /// Whether this copy is the primary's, as this change leaves it.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.header.primary == self.header.member
    }

    /// Generates the next generation, above every own one and `highest_known`, the highest that any
    /// server reported; one that is prepared already is that one again.
    ///
    /// # Errors
    /// On a standby; while another one is distributed; when there is no higher number.
    pub fn prepare(
        &mut self,
        now: OffsetDateTime,
        highest_known: u32,
    ) -> Result<(Generation, Fingerprint), Refusal> {
        self.require_primary()?;
        if let Some(coming) = self.header.generations.iter().find(|it| it.state.is_coming()) {
            return if coming.state == State::Prepared {
                Ok((coming.generation, coming.fingerprint))
            } else {
                Err(wrong_state(
                    coming,
                    "the next one is prepared when this one is active: wait until every server and \
                     master has it, or leave those behind that are away",
                ))
            };
        }
        let own = self.header.generations.last().map_or(0, |it| it.generation.number());
        let number = own.max(highest_known).checked_add(1);
        let generation = number.and_then(Generation::new).ok_or_else(|| {
            let message = "there is no number above the highest generation that a server reported: \
                           look at what the servers report";
            Refusal::new(Reason::OutOfRange, message)
        })?;
        let key = LockedKey::generate().map_err(internal)?;
        let entry = GenerationEntry {
            generation,
            state: State::Prepared,
            created: whole_seconds(now),
            activated: None,
            backed_up: None,
            fingerprint: Fingerprint::of(&key),
            wrapped: Some(self.wrap(generation, &key)?),
        };
        let fingerprint = entry.fingerprint;
        self.header.generations.push(entry);
        Ok((generation, fingerprint))
    }

    /// Hands the prepared generation out from this change on. `left_behind` are not waited for;
    /// sealing again takes `rows_per_second` from the database, or as many as it gives with 0.
    ///
    /// # Errors
    /// On a standby; when it is not prepared, or in no backup that was opened again.
    pub fn distribute(
        &mut self,
        generation: Generation,
        left_behind: &[String],
        rows_per_second: u32,
    ) -> Result<(), Refusal> {
        self.require_primary()?;
        let advice = "only a prepared generation is handed out: `sso secret rotate` prepares one";
        let entry = self.require(generation, State::Prepared, advice)?;
        if entry.backed_up.is_none() {
            return Err(no_backup(entry, "before it is handed out"));
        }
        check_names(left_behind)?;
        let change = self.next_change()?;
        self.set_state(generation, State::Distributed);
        self.header.distributed_in = Some(change);
        self.header.left_behind = left_behind.iter().cloned().collect();
        self.header.reseal_rows_per_second = rows_per_second;
        Ok(())
    }

    /// Adds names that the rotation which goes on does not wait for.
    ///
    /// # Errors
    /// On a standby; when no generation is distributed.
    pub fn leave_behind(&mut self, names: &[String]) -> Result<(), Refusal> {
        self.require_primary()?;
        if self.header.distributed_in.is_none() {
            let message = "no generation is being distributed, so nobody is waited for";
            return Err(Refusal::new(Reason::GenerationStateWrong, message));
        }
        check_names(names)?;
        self.header.left_behind.extend(names.iter().cloned());
        Ok(())
    }

    /// Has new values sealed under the distributed generation; the one that was active drains.
    ///
    /// # Errors
    /// On a standby; when it is not distributed, or in no backup that was opened again.
    pub fn activate(&mut self, generation: Generation, now: OffsetDateTime) -> Result<(), Refusal> {
        self.require_primary()?;
        let advice = "only a generation that every server has becomes active";
        let entry = self.require(generation, State::Distributed, advice)?;
        if entry.backed_up.is_none() {
            return Err(no_backup(entry, "before it becomes active"));
        }
        let now = whole_seconds(now);
        for entry in &mut self.header.generations {
            if entry.generation == generation {
                entry.state = State::Active;
                entry.activated = Some(now);
            } else if entry.state == State::Active {
                entry.state = State::Draining;
            }
        }
        self.header.distributed_in = None;
        self.header.left_behind = BTreeSet::new();
        Ok(())
    }

    /// Says that nothing is sealed under the generation any more; whoever calls has the proof.
    ///
    /// # Errors
    /// On a standby; when it is not draining.
    pub fn retire(&mut self, generation: Generation) -> Result<(), Refusal> {
        self.require_primary()?;
        let advice = "only a draining generation is retired: rotate first, then wait until every \
                      value is sealed again";
        self.require(generation, State::Draining, advice)?;
        self.set_state(generation, State::Retired);
        Ok(())
    }

    /// Takes the key of a retired generation away for good; the entry stays.
    ///
    /// # Errors
    /// On a standby; when it is not retired, `fingerprint` is not its own, or it is in no backup that
    /// was opened again.
    pub fn destroy(&mut self, generation: Generation, fingerprint: &str) -> Result<(), Refusal> {
        self.require_primary()?;
        let entry = self.entry(generation)?;
        if fingerprint != entry.fingerprint.to_string() {
            let message = format!(
                "the fingerprint {fingerprint:?} is not that of {}: look with `sso secret status` \
                 which generation is meant",
                named(entry)
            );
            return Err(Refusal::new(Reason::GenerationFingerprintWrong, message));
        }
        let advice = "only a retired generation is destroyed: `sso secret retire` proves first that \
                      nothing is sealed under it";
        let entry = self.require(generation, State::Retired, advice)?;
        if entry.backed_up.is_none() {
            return Err(no_backup(entry, "before its key is destroyed"));
        }
        for entry in &mut self.header.generations {
            if entry.generation == generation {
                entry.state = State::Destroyed;
                entry.wrapped = None;
            }
        }
        Ok(())
    }

    /// Says that a backup which was opened again holds `found`. Gives the generations that are kept
    /// here with the same key. Only the primary has it on record.
    pub fn record_backup(
        &mut self,
        found: &[(Generation, Fingerprint)],
        now: OffsetDateTime,
    ) -> Vec<Generation> {
        let (recorded, now) = (self.is_primary(), whole_seconds(now));
        let mut matched = Vec::new();
        for entry in &mut self.header.generations {
            let kept = entry.state != State::Destroyed;
            if kept && found.contains(&(entry.generation, entry.fingerprint)) {
                matched.push(entry.generation);
                if recorded {
                    entry.backed_up = Some(now);
                }
            }
        }
        matched
    }

    /// Adds the generations of an opened backup of this keystore that are missing or destroyed here;
    /// they come in as retired. The keystore of before is kept aside.
    ///
    /// # Errors
    /// On a standby; when a generation has another key here, or nothing is missing.
    pub fn restore(
        &mut self,
        ring: &KeyRing,
        now: OffsetDateTime,
    ) -> Result<Vec<Generation>, Refusal> {
        self.require_primary()?;
        let now = whole_seconds(now);
        let (mut entries, mut added) = (self.header.generations.clone(), Vec::new());
        for (generation, fingerprint) in ring.generations() {
            let place = entries.binary_search_by_key(&generation, |entry| entry.generation);
            let own = place.ok().and_then(|at| entries.get(at));
            if let Some(own) = own.filter(|own| own.fingerprint != fingerprint) {
                let message = format!(
                    "the backup has another key (fingerprint {fingerprint}) for {}: it is a backup \
                     of other keys; nothing was restored",
                    named(own)
                );
                return Err(Refusal::new(Reason::BackupForeign, message));
            }
            if own.is_some_and(|own| own.state != State::Destroyed) {
                continue;
            }
            let key = ring.key(generation).ok_or_else(|| internal("a ring lacks its own key"))?;
            let entry = GenerationEntry {
                generation,
                state: State::Retired,
                created: own.map_or(now, |own| own.created),
                activated: own.and_then(|own| own.activated),
                backed_up: Some(now),
                fingerprint,
                wrapped: Some(self.wrap(generation, key)?),
            };
            match place {
                Ok(at) => entries.splice(at..=at, [entry]).for_each(drop),
                Err(at) => entries.insert(at, entry),
            }
            added.push(generation);
        }
        if added.is_empty() {
            let message = "the keystore has every generation of the backup already";
            return Err(Refusal::new(Reason::BackupHasNothingNew, message));
        }
        self.header.generations = entries;
        self.keep_aside = true;
        Ok(added)
    }

    /// Makes this master the primary of a new epoch, above its own and `known_epoch`, the highest
    /// that a server or another master reported.
    ///
    /// # Errors
    /// When there is no higher epoch.
    pub fn promote(&mut self, known_epoch: u64) -> Result<u64, Refusal> {
        let highest = self.header.epoch.max(known_epoch);
        if highest >= EPOCH_END - 1 {
            let message = format!("there is no epoch above {highest}: look who reports that one");
            return Err(Refusal::new(Reason::PromotionRefused, message));
        }
        self.header.epoch = highest + 1;
        self.header.primary = self.header.member;
        Ok(self.header.epoch)
    }

    /// Takes the right to the master secret from the servers of this name; `false` when they have it
    /// no more.
    ///
    /// # Errors
    /// On a standby; when the name is none.
    pub fn revoke(&mut self, name: &str) -> Result<bool, Refusal> {
        self.require_primary()?;
        check_names(&[name.to_owned()])?;
        Ok(self.header.revocations.revoke(name))
    }

    /// Gives that right back, also where this keystore has not heard that it was taken.
    ///
    /// # Errors
    /// On a standby; when the name is none.
    pub fn readmit(&mut self, name: &str) -> Result<(), Refusal> {
        self.require_primary()?;
        check_names(&[name.to_owned()])?;
        let _ = self.header.revocations.readmit(name);
        Ok(())
    }

    /// Takes over revocations that a database remembers and this keystore has not heard of; whether there
    /// was one.
    ///
    /// # Errors
    /// On a standby; when one of the names is none.
    pub fn learn_revocations(&mut self, told: &Revocations) -> Result<bool, Refusal> {
        self.require_primary()?;
        check_names(&told.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>())?;
        Ok(self.header.revocations.take_revoked(told))
    }

    fn next_change(&self) -> Result<u64, Refusal> {
        self.before.change.checked_add(1).ok_or_else(|| internal("the changes are at their end"))
    }

    fn wrap(
        &self,
        generation: Generation,
        key: &LockedKey,
    ) -> Result<sso_protector::encoding::Base64, Refusal> {
        Header::wrap(self.header.keystore, generation, key, self.wrapping).map_err(internal)
    }

    fn set_state(&mut self, generation: Generation, state: State) {
        for entry in &mut self.header.generations {
            if entry.generation == generation {
                entry.state = state;
            }
        }
    }

    fn require_primary(&self) -> Result<(), Refusal> {
        if self.is_primary() {
            return Ok(());
        }
        let Header { member, primary, epoch, .. } = &self.header;
        let message = format!(
            "this master ({member}) is on standby, the primary of epoch {epoch} is {primary}: ask \
             that one, or make this one the primary with `sso secret promote`"
        );
        Err(Refusal::new(Reason::NotPrimary, message))
    }

    /// What is known of a generation, as this change leaves it.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn entry(&self, generation: Generation) -> Result<&GenerationEntry, Refusal> {
        let found = self.header.generations.iter().find(|entry| entry.generation == generation);
        found.ok_or_else(|| {
            let message = format!(
                "the keystore has no generation {generation}: `sso secret status` lists those it has"
            );
            Refusal::new(Reason::GenerationNotFound, message)
        })
    }

    fn require(
        &self,
        generation: Generation,
        state: State,
        advice: &str,
    ) -> Result<&GenerationEntry, Refusal> {
        let entry = self.entry(generation)?;
        if entry.state == state { Ok(entry) } else { Err(wrong_state(entry, advice)) }
    }
}

fn check_names(names: &[String]) -> Result<(), Refusal> {
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!("{name:?} is no name: write 1 to {NAME_BYTES_MAX} bytes");
            Err(Refusal::new(Reason::InvalidRequest, message))
        }
    }
}

fn wrong_state(entry: &GenerationEntry, advice: &str) -> Refusal {
    let message = format!("{} is {}: {advice}", named(entry), entry.state);
    Refusal::new(Reason::GenerationStateWrong, message)
}

fn no_backup(entry: &GenerationEntry, when: &str) -> Refusal {
    let message = format!(
        "{} is {}, and in no backup that was opened again, as it must be {when}: `sso secret backup \
         FILE`, then `sso secret verify FILE`",
        named(entry),
        entry.state
    );
    Refusal::new(Reason::BackupMissing, message)
}

fn named(entry: &GenerationEntry) -> String {
    format!("generation {} (fingerprint {})", entry.generation, entry.fingerprint)
}

pub(super) fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Internal, format!("the keystore cannot be changed: {error}"))
}
