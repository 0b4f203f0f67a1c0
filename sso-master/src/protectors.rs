//! Lists, adds and removes protectors of a keystore. The master secret is not touched: only stanzas
//! change, under the lock of editing, while the master may run.
//!
//! A stanza is proved before it is written: it gives back the key that opens the keystore. And none is
//! removed before another one did.

use std::{io, os::unix::fs::MetadataExt as _, path::Path};

use serde::Serialize;
use sso_core::{local::user_name, memory::LockedKey, process::user_id};
use sso_protector::{
    Kind, Protector, ProtectorError, ProtectorSettings, Stanza, protectors, unlock,
};
use sso_proto::Event;

use crate::{
    custody::EditLock,
    error::MasterError,
    keystore::{Keystore, KeystoreError},
    settings::Settings,
};

/// Why the protectors of a keystore are not changed, beyond what keystore and protectors say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectorsError {
    /// Another user's keystore: written by this one, the master could not read it any more.
    #[error(
        "keystore {path} belongs to the user {owner}: run this as that user, with the credentials that \
         the service has (docs/operations.md, as_master)"
    )]
    Owner {
        /// The file.
        path: String,
        /// Its owner.
        owner: String,
    },
    /// The settings have no such entry.
    #[error("the settings have no [[protector]] of the kind {0}: write it there first")]
    NotInSettings(Kind),
    /// The keystore has no such stanza.
    #[error("the keystore has no protector {wanted}; it has: {present}")]
    NotThere {
        /// What was to be removed.
        wanted: String,
        /// Numbers and kinds.
        present: String,
    },
    /// The kind alone does not say which one.
    #[error(
        "the keystore has several protectors {kind}: name its number of `protector list`, {present}"
    )]
    Several {
        /// The kind.
        kind: Kind,
        /// Numbers and kinds.
        present: String,
    },
    /// Nothing would unlock the keystore any more.
    #[error("{0} is the only protector of the keystore: add another one first, then remove it")]
    Last(Kind),
    /// Only what the kernel forgets would be left.
    #[error(
        "without {0} only the kernel's keyring would be left, which forgets at a restart of the \
         machine: add another protector first"
    )]
    Forgetful(Kind),
    /// Nothing else in the settings opens the keystore.
    #[error("{kind} stays: no other protector of the settings opens the keystore: {source}")]
    NoOther {
        /// What was to be removed.
        kind: Kind,
        /// Why not.
        source: ProtectorError,
    },
    /// A stanza does not give back what it took.
    #[error("{0} does not give the key of the keystore back; nothing was added")]
    NotProved(Kind),
    /// Somebody else removed it meanwhile.
    #[error("the protectors of the keystore were changed by somebody else meanwhile: look again")]
    Changed,
}

/// Which stanza is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The only one of this kind.
    Kind(Kind),
    /// The one of this number in the list, from 1.
    Number(usize),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::Number).or_else(|_| text.parse().map(Self::Kind))
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// One line of the list: a stanza of the keystore, or an entry of the settings that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its number in the keystore; none when it has no stanza yet.
    pub number: Option<usize>,
    /// The kind.
    pub kind: Kind,
    /// Which one of its kind, as far as one can tell.
    pub label: String,
    /// Whether the settings name it.
    pub in_settings: bool,
    /// Whether it opens the keystore now, if that was tried.
    pub opens: Option<bool>,
    /// Why it does not.
    pub problem: Option<String>,
}

/// What protects the keystore. With `attempt` each stanza is asked for the key, which may ask a
/// person.
///
/// # Errors
/// When the keystore cannot be read.
pub fn list(settings: &Settings, attempt: bool) -> Result<Vec<Listed>, MasterError> {
    let keystore = Keystore::read(&settings.keystore)?;
    let usable: Vec<_> = settings.protector.iter().map(ProtectorSettings::protector).collect();
    let mut listed: Vec<_> = keystore
        .stanzas()
        .iter()
        .zip(1..)
        .map(|(stanza, number)| describe(&keystore, stanza, number, settings, &usable, attempt))
        .collect();
    for (entry, protector) in settings.protector.iter().zip(&usable) {
        let (label, covered, problem) = match protector {
            Ok(protector) => {
                let covered = keystore.stanzas().iter().any(|stanza| protector.covers(stanza));
                (protector.label(), covered, None)
            }
            Err(error) => {
                (String::new(), has_kind(&keystore, entry.kind()), Some(error.to_string()))
            }
        };
        if !covered {
            let kind = entry.kind();
            let opens = None;
            listed.push(Listed { number: None, kind, label, in_settings: true, opens, problem });
        }
    }
    Ok(listed)
}

fn has_kind(keystore: &Keystore, kind: Kind) -> bool {
    keystore.stanzas().iter().any(|stanza| stanza.kind() == kind)
}

fn describe(
    keystore: &Keystore,
    stanza: &Stanza,
    number: usize,
    settings: &Settings,
    usable: &[Result<Box<dyn Protector>, ProtectorError>],
    attempt: bool,
) -> Listed {
    let kind = stanza.kind();
    let mut listed = Listed {
        number: Some(number),
        kind,
        label: stanza.label(),
        in_settings: settings.protector.iter().any(|entry| entry.kind() == kind),
        opens: attempt.then_some(false),
        problem: None,
    };
    let own = usable.iter().flatten().filter(|protector| protector.covers(stanza));
    let own: Vec<_> = own.collect();
    if let (true, [only]) = (listed.label.is_empty(), own.as_slice()) {
        listed.label = only.label();
    }
    if !attempt {
        return listed;
    }
    let broken = settings.protector.iter().zip(usable).filter(|(entry, _)| entry.kind() == kind);
    listed.problem =
        broken.filter_map(|(_, made)| made.as_ref().err()).map(ToString::to_string).next();
    if own.is_empty() && listed.problem.is_none() {
        listed.problem = Some("the settings do not name it".to_owned());
    }
    for protector in own {
        match opens(keystore, protector.as_ref(), stanza) {
            Ok(_) => {
                listed.label = protector.label();
                (listed.opens, listed.problem) = (Some(true), None);
                break;
            }
            Err(error) => listed.problem = Some(error.to_string()),
        }
    }
    listed
}

/// The keystore key, from this stanza alone, after it opened the keystore.
fn opens(
    keystore: &Keystore,
    protector: &dyn Protector,
    stanza: &Stanza,
) -> Result<LockedKey, MasterError> {
    let key = protector.unwrap(keystore.id(), stanza)?;
    let key = key.ok_or(ProtectorsError::NotProved(protector.kind()))?;
    keystore.open(&key)?;
    Ok(key)
}

/// The list for people.
#[must_use]
pub fn table(listed: &[Listed]) -> String {
    let heading = ["", "KIND", "NAME", "SETTINGS", "OPENS"].map(str::to_owned).to_vec();
    let rows = listed.iter().map(|it| {
        let opens = match (it.opens, it.number) {
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
            (None, None) => "not added",
            (None, Some(_)) => "not tried",
        };
        let opens = it.problem.as_ref().map_or_else(
            || opens.to_owned(),
            |problem| format!("{opens}: {}", problem.replace('\n', " ")),
        );
        let number = it.number.map_or_else(String::new, |number| number.to_string());
        let named = if it.in_settings { "yes" } else { "no" };
        vec![number, it.kind.to_string(), it.label.clone(), named.to_owned(), opens]
    });
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)?.chars().count().into()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The list for programs.
#[must_use]
pub fn json(listed: &[Listed]) -> String {
    // Nothing in it can fail to be spelled.
    serde_json::to_string_pretty(listed).unwrap_or_default()
}

/// Adds a stanza for each entry of the settings that has none, or only for those of the kinds `only`.
/// Gives what was added: kinds and labels.
///
/// # Errors
/// When no protector of the keystore gives its key, an entry cannot be used or does not give the key
/// back, or the file cannot be written: nothing is added then.
pub fn add(settings: &Settings, only: &[Kind]) -> Result<Vec<(Kind, String)>, MasterError> {
    require_owner(&settings.keystore)?;
    let keystore = Keystore::read(&settings.keystore)?;
    for kind in only {
        if !settings.protector.iter().any(|entry| entry.kind() == *kind) {
            return Err(ProtectorsError::NotInSettings(*kind).into());
        }
    }
    let wanted = settings.protector.iter();
    let wanted = wanted.filter(|entry| only.is_empty() || only.contains(&entry.kind()));
    let mut lacking = Vec::new();
    for entry in wanted {
        let protector = match entry.protector() {
            Ok(protector) => protector,
            Err(error) if only.is_empty() && has_kind(&keystore, entry.kind()) => {
                tracing::warn!(%error, protector = %entry.kind(), "left out");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if lacks(&keystore, entry, protector.as_ref())? {
            lacking.push(protector);
        }
    }
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let present = protectors(&settings.protector, true)?;
    let key = unlock(&present, keystore.id(), keystore.stanzas())?;
    keystore.open(&key)?;

    let mut added = Added { keystore: &keystore, protectors: Vec::new(), kept: false };
    let mut stanzas = Vec::new();
    for protector in &lacking {
        added.protectors.push(protector.as_ref());
        let stanza = protector.wrap(keystore.id(), &key)?;
        if opens(&keystore, protector.as_ref(), &stanza)? != key {
            return Err(ProtectorsError::NotProved(protector.kind()).into());
        }
        stanzas.push(stanza);
    }
    edit(&settings.keystore, &key, |mut present| {
        present.extend(stanzas);
        Ok(present)
    })?;
    added.kept = true;
    let names: Vec<_> = lacking.iter().map(|it| (it.kind(), it.label())).collect();
    for (kind, label) in &names {
        tracing::info!(
            event = Event::ProtectorAdded.number(),
            keystore = %keystore.id(),
            protector = %kind,
            label,
            "a protector was added"
        );
    }
    Ok(names)
}

/// Whether no stanza of the keystore is of this entry's making. Those with a secret that can be read
/// are tried: the keystore may have another one of the kind.
fn lacks(
    keystore: &Keystore,
    entry: &ProtectorSettings,
    protector: &dyn Protector,
) -> Result<bool, ProtectorError> {
    let mut own = keystore.stanzas().iter().filter(|stanza| protector.covers(stanza)).peekable();
    if own.peek().is_none() {
        return Ok(true);
    }
    let tells = match entry.kind() {
        Kind::Passphrase | Kind::KeyFile => !entry.prompts(),
        // One stanza for each keyring, and for each key of a token.
        Kind::SecretService | Kind::Keyutils | Kind::Pkcs11 => false,
    };
    if !tells {
        return Ok(false);
    }
    for stanza in own {
        match protector.unwrap(keystore.id(), stanza) {
            Ok(_) => return Ok(false),
            Err(ProtectorError::WrongPassphrase(_) | ProtectorError::WrongKeyFile { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Lets keyrings forget what was added, unless it is kept.
struct Added<'a> {
    keystore: &'a Keystore,
    protectors: Vec<&'a dyn Protector>,
    kept: bool,
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for protector in &self.protectors {
            if let Err(error) = protector.forget(self.keystore.id()) {
                tracing::warn!(%error, "an entry that is of no use stays in a keyring");
            }
        }
    }
}

/// Removes the stanza `which`, after one of the others opened the keystore. Gives its kind.
///
/// # Errors
/// When it is not there or not the only one of its kind, no other protector opens the keystore, or the
/// file cannot be written: nothing is removed then.
pub fn remove(settings: &Settings, which: Which) -> Result<Kind, MasterError> {
    require_owner(&settings.keystore)?;
    let keystore = Keystore::read(&settings.keystore)?;
    let (gone, others) = pick(keystore.stanzas(), which)?;
    let kind = gone.kind();
    if others.is_empty() {
        return Err(ProtectorsError::Last(kind).into());
    }
    if others.iter().all(|stanza| stanza.kind() == Kind::Keyutils) {
        return Err(ProtectorsError::Forgetful(kind).into());
    }
    // What the kernel may forget tomorrow proves nothing.
    let lasting: Vec<_> =
        others.iter().filter(|stanza| stanza.kind() != Kind::Keyutils).cloned().collect();
    let no_other = |source| ProtectorsError::NoOther { kind, source };
    let usable = protectors(&settings.protector, true).map_err(no_other)?;
    let key = unlock(&usable, keystore.id(), &lasting).map_err(no_other)?;
    keystore.open(&key)?;

    edit(&settings.keystore, &key, |present| {
        if !lasting.iter().all(|other| present.contains(other)) || !present.contains(&gone) {
            return Err(ProtectorsError::Changed);
        }
        Ok(present.into_iter().filter(|stanza| *stanza != gone).collect())
    })?;
    tracing::info!(
        event = Event::ProtectorRemoved.number(),
        keystore = %keystore.id(),
        protector = %kind,
        label = gone.label(),
        "a protector was removed"
    );
    if !others.iter().any(|stanza| stanza.kind() == kind) {
        for protector in usable.iter().filter(|protector| protector.kind() == kind) {
            if let Err(error) = protector.forget(keystore.id()) {
                tracing::warn!(%error, "an entry that is of no use stays in the keyring");
            }
        }
    }
    Ok(kind)
}

/// The stanza that is meant, and all others.
fn pick(stanzas: &[Stanza], which: Which) -> Result<(Stanza, Vec<Stanza>), ProtectorsError> {
    let present = || {
        let names: Vec<_> = stanzas
            .iter()
            .zip(1_u32..)
            .map(|(stanza, at)| format!("{at} {}", stanza.kind()))
            .collect();
        names.join(", ")
    };
    let matching: Vec<_> = stanzas
        .iter()
        .zip(1..)
        .filter(|(stanza, at)| match which {
            Which::Kind(kind) => stanza.kind() == kind,
            Which::Number(number) => *at == number,
        })
        .collect();
    match (matching.as_slice(), which) {
        ([(gone, number)], _) => {
            let others = stanzas.iter().zip(1..).filter(|(_, at)| at != number);
            Ok(((*gone).clone(), others.map(|(stanza, _)| stanza.clone()).collect()))
        }
        ([], _) | (_, Which::Number(_)) => {
            Err(ProtectorsError::NotThere { wanted: which.to_string(), present: present() })
        }
        (_, Which::Kind(kind)) => Err(ProtectorsError::Several { kind, present: present() }),
    }
}

/// Changes the stanzas in the file, as they are by then: all of it or nothing.
fn edit(
    path: &Path,
    key: &LockedKey,
    change: impl FnOnce(Vec<Stanza>) -> Result<Vec<Stanza>, ProtectorsError>,
) -> Result<(), MasterError> {
    let lock = EditLock::take(path)?;
    // The running master may have changed the rest since it was read.
    let found = Keystore::read(path)?;
    let stanzas = change(found.stanzas().to_vec())?;
    let changed = found.with_stanzas(stanzas).map_err(KeystoreError::from)?;
    lock.replace(&changed, |again| again.open(key).map(drop))?;
    Ok(())
}

/// Refuses to write a keystore that its owner could not read any more.
fn require_owner(path: &Path) -> Result<(), MasterError> {
    let owner = match std::fs::metadata(path) {
        Ok(metadata) => metadata.uid(),
        // Reading it says what is wrong.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if owner == user_id() {
        return Ok(());
    }
    let owner = user_name(owner).map_or_else(|| owner.to_string(), |name| name.to_string());
    Err(ProtectorsError::Owner { path: path.display().to_string(), owner }.into())
}

#[cfg(test)]
mod tests;
