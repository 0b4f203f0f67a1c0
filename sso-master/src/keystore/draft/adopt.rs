//! Taking over the keystore of another master.

use std::collections::BTreeMap;

use sso_core::{
    derive::Fingerprint, key_ring::Generation, memory::LockedKey, wrapping::WrappingKey,
};
use sso_proto::{Reason, Refusal};
use uuid::Uuid;

use super::{Draft, EPOCH_END, internal, named};
use crate::{
    TOOL,
    keystore::{GenerationEntry, State, format::Header},
};

/// What came of the keystore of another master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// It was newer, and was taken over.
    pub newer: bool,
    /// Generations that were held with a key that the other master does not have, for no reason known
    /// here.
    pub lost: Vec<(Generation, Fingerprint)>,
}

impl Draft<'_> {
    /// Takes over the whole keystore of another master, the header (JSON) and every key, when it is of a
    /// higher epoch, or of the same and a later change. This copy keeps its member id, and with it the
    /// role that the other keystore gives to it. Where keys are lost by it, the keystore of before is
    /// kept aside.
    ///
    /// # Errors
    /// When it is of another system, of an earlier epoch, has another primary in the same epoch, or
    /// header and keys do not fit.
    pub fn adopt(
        &mut self,
        header_json: &str,
        keys: Vec<(Generation, LockedKey)>,
    ) -> Result<Adopted, Refusal> {
        let own = &self.header;
        let other = taken_over(header_json, keys, own.member, self.wrapping)?;
        if other.keystore != own.keystore {
            let (other, own) = (other.keystore, own.keystore);
            let message = format!(
                "the other master has keystore {other}, this one has keystore {own}: correct the \
                 [[peer]] of the settings"
            );
            return Err(Refusal::new(Reason::MasterSecretForeign, message));
        }
        if other.epoch < own.epoch {
            let (other, own) = (other.epoch, own.epoch);
            let message = format!("the other master is of epoch {other}, this one of epoch {own}");
            return Err(Refusal::new(Reason::MasterOutdated, message));
        }
        if other.epoch == own.epoch && other.primary != own.primary {
            let (epoch, other, own) = (own.epoch, other.primary, own.primary);
            let message = format!(
                "epoch {epoch} has two primaries, {own} here and {other} there: promote the one that \
                 shall go on, `sso secret promote`"
            );
            return Err(Refusal::new(Reason::MasterOutdated, message));
        }
        if (other.epoch, other.change) <= (own.epoch, own.change) {
            return Ok(Adopted { newer: false, lost: Vec::new() });
        }
        let lost: Vec<_> = own.generations.iter().filter(|entry| is_lost(entry, &other)).collect();
        let lost: Vec<_> = lost.iter().map(|entry| (entry.generation, entry.fingerprint)).collect();
        self.keep_aside |= !lost.is_empty();
        let revocations = std::mem::replace(&mut self.header, other).revocations;
        // The other one may not have heard of them all.
        let _ = self.header.revocations.take(&revocations);
        self.adopted = true;
        Ok(Adopted { newer: true, lost })
    }
}

/// The header of a transfer with its keys wrapped anew, as the copy of `member`.
pub(in crate::keystore) fn taken_over(
    header_json: &str,
    keys: Vec<(Generation, LockedKey)>,
    member: Uuid,
    wrapping: &WrappingKey,
) -> Result<Header, Refusal> {
    let unfit = |what: String| {
        let message = format!("what the other master sent is no keystore: {what}");
        Refusal::new(Reason::InvalidRequest, message)
    };
    let mut header: Header =
        serde_json::from_str(header_json).map_err(|error| unfit(error.to_string()))?;
    let mut held: BTreeMap<_, _> = keys.into_iter().collect();
    let keystore = header.keystore;
    for entry in &mut header.generations {
        let generation = entry.generation;
        entry.wrapped = match (held.remove(&generation), entry.state == State::Destroyed) {
            (Some(key), false) if Fingerprint::of(&key) == entry.fingerprint => {
                Some(Header::wrap(keystore, generation, &key, wrapping).map_err(internal)?)
            }
            (None, true) => None,
            (Some(_), _) => return Err(unfit(format!("another key came with {}", named(entry)))),
            (None, false) => return Err(unfit(format!("no key came with {}", named(entry)))),
        };
    }
    if let Some(generation) = held.keys().next() {
        return Err(unfit(format!(
            "a key of generation {generation} came, which it does not have"
        )));
    }
    if header.epoch >= EPOCH_END {
        return Err(unfit(format!("there is no epoch {}", header.epoch)));
    }
    header.member = member;
    TOOL.clone_into(&mut header.tool);
    header.check().map_err(|error| unfit(error.to_string()))?;
    Ok(header)
}

/// Whether `other` does not have a key that is held, and this keystore knows no reason for it: only what
/// is retired may be destroyed.
fn is_lost(own: &GenerationEntry, other: &Header) -> bool {
    let accounted_for = |entry: &GenerationEntry| {
        (entry.generation, entry.fingerprint) == (own.generation, own.fingerprint)
            && (entry.state != State::Destroyed || own.state == State::Retired)
    };
    own.state != State::Destroyed && !other.generations.iter().any(accounted_for)
}
