//! Writing configurations: set, delete, roll back. Every write is one transaction that first takes
//! the row of the configuration, so that writers of one identifier follow one another; or one statement
//! that moves on from the revision it was made for, where nobody else writes at the moment.

use std::sync::Arc;

use sso_core::secret::SecretText;
use sso_proto::Reason;

use super::{ConfigStore, SetMode, Write, Written, field, not_found, require_revision};
use crate::{
    access::{Action, Call},
    audit::Subject,
    changes::Change,
    error::Error,
    model::{
        Application, ApplicationName, Bag, ConfigurationHead, ConfigurationId, Field, Identifier,
        Label, Revision,
    },
    storage::{NewRevision, StorageError, StoredConfiguration, Transaction},
    vault::BagPlace,
};

/// A configuration taken for writing: its new revision, and what it was before.
struct Taken<'a> {
    id: ConfigurationId,
    identifier: &'a Identifier,
    revision: Revision,
    /// The revision before; 0 for a configuration that is new.
    before: Revision,
    /// There are no values: it is new or was deleted.
    empty: bool,
}

/// The values to write, beside those they take the place of.
struct Put<'a> {
    taken: &'a Taken<'a>,
    stored: &'a Bag,
    bag: &'a Bag,
    rolled_back_to: Option<Revision>,
}

/// A write of values that names fields of the application.
struct Set<'a> {
    call: &'a Call,
    application: &'a Application,
    identifier: &'a Identifier,
    values: Vec<(Field, Option<SecretText>)>,
    mode: SetMode,
}

impl Set<'_> {
    fn subject<'s>(&'s self, detail: &'s str) -> Subject<'s> {
        let (application, object) = (self.application.name.as_str(), self.identifier.as_str());
        Subject { application, object, detail }
    }
}

impl ConfigStore {
    /// Writes values. The first write of an identifier must name every field but field 0.
    ///
    /// # Errors
    /// A missing role, `UNKNOWN_FIELD`, `VALUES_EMPTY`, `VALUES_INCOMPLETE`, `VALUE_TOO_LARGE`,
    /// `KEEP_MISSING`, `KEEP_EMPTY`, `REVISION_STALE`, `MASTER_UNREACHABLE`. Nothing is changed.
    pub async fn set(
        &self,
        call: &Call,
        name: &ApplicationName,
        identifier: &Identifier,
        write: Write,
    ) -> Result<Written, Error> {
        let application = self.enter(call, Action::ConfigurationSet, name).await?;
        let values = resolve(&application, write.values)?;
        self.vault.require_sealing()?;
        let set = Set { call, application: &application, identifier, values, mode: write.mode };
        if !write.dry_run
            && let Some(written) = self.set_at_once(&set, write.if_revision).await?
        {
            return Ok(written);
        }
        // On the heap: most writes do not come here, and need not make room for it.
        Box::pin(self.set_by_steps(&set, write.if_revision, write.dry_run)).await
    }

    /// Writes values in a transaction that holds the configuration.
    async fn set_by_steps(
        &self,
        set: &Set<'_>,
        if_revision: Option<Revision>,
        dry_run: bool,
    ) -> Result<Written, Error> {
        let Set { call, application, identifier, values, mode } = set;
        let mut transaction = self.begin(call, Action::ConfigurationSet, application).await?;
        let taken = self.take(&mut transaction, application, identifier, call).await?;
        require_revision(if_revision, taken.before, taken.empty, identifier)?;
        let stored = match self.bag_before(&mut transaction, application, &taken).await {
            // A damaged configuration can be written anew as a whole.
            Err(error) if *mode == SetMode::Replace && is_damage(&error) => Bag::default(),
            other => other?,
        };
        let (bag, mut written) =
            apply(application, identifier, &stored, values, *mode, taken.empty)?;
        written.revision = taken.revision;
        if written.written.is_empty() && written.cleared.is_empty() {
            transaction.rollback().await?;
            return Ok(Written { revision: taken.before, ..written });
        }
        if dry_run {
            transaction.rollback().await?;
            return Ok(written);
        }
        let new = Put { taken: &taken, stored: &stored, bag: &bag, rolled_back_to: None };
        self.put(&mut transaction, call, application, new).await?;
        let detail = detail(&written);
        let subject = set.subject(&detail);
        self.audit.record(&mut transaction, call, Action::ConfigurationSet, subject).await?;
        self.commit(transaction, call, Change::Configuration(application.id, taken.id)).await?;
        Ok(written)
    }

    /// Writes the revision that follows the newest one in one statement, without holding anything before
    /// it. `None`, and nothing is written, where that does not serve: there is no configuration yet,
    /// another writes it too, what was read of it or of its application is not the newest any more, or it
    /// is to be refused. Then the way with a transaction decides.
    async fn set_at_once(
        &self,
        set: &Set<'_>,
        if_revision: Option<Revision>,
    ) -> Result<Option<Written>, Error> {
        let Set { call, application, identifier, values, mode } = set;
        self.storage.require_room_to_write_on()?;
        let since = self.changes.ticks().now();
        let found = self.cache.configuration(application.id, identifier).await?;
        let Some(current) = found else { return Ok(None) };
        let before = current.revision;
        if if_revision.is_some_and(|expected| expected != before) {
            return Ok(None);
        }
        let revision = Revision(before.0.saturating_add(1));
        let taken = Taken { id: current.id, identifier, revision, before, empty: false };
        let place = place(application, &taken, before);
        let Ok(stored) = self.vault.open(&place, current.sealed.as_ref()) else { return Ok(None) };
        let applied = apply(application, identifier, &stored, values, *mode, false);
        let Ok((bag, mut written)) = applied else { return Ok(None) };
        if written.written.is_empty() && written.cleared.is_empty() {
            return Ok(None);
        }
        written.revision = revision;
        let new = Put { taken: &taken, stored: &stored, bag: &bag, rolled_back_to: None };
        let row = self.row(call, application, &new)?;
        let detail = detail(&written);
        let record = self.audit.entry(call, Action::ConfigurationSet, set.subject(&detail));
        match self.storage.write_on(application, row.clone(), record).await {
            Ok(Some(number)) => {
                call.note_change(number);
                if let Some(tick) = self.changes.wrote(application.id, taken.id, number, since) {
                    let head = ConfigurationHead {
                        id: taken.id,
                        identifier: current.identifier,
                        revision,
                        deleted: false,
                        updated_at: row.written_at,
                        updated_by: row.written_by,
                    };
                    let (sealed, generation) = (row.sealed, row.generation);
                    let stored = StoredConfiguration { head, sealed, generation };
                    self.cache.keep_written(application.id, &stored, tick);
                }
                Ok(Some(written))
            }
            // Step by step it shows what the database does not accept.
            Ok(None) | Err(StorageError::Statement(_) | StorageError::Gone) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the values of an earlier revision as a new one.
    ///
    /// # Errors
    /// A missing role, `CONFIGURATION_NOT_FOUND`, `REVISION_NOT_FOUND`, `REVISION_STALE`,
    /// `MASTER_UNREACHABLE`.
    pub async fn rollback(
        &self,
        call: &Call,
        name: &ApplicationName,
        identifier: &Identifier,
        wanted: Revision,
        if_revision: Option<Revision>,
    ) -> Result<Revision, Error> {
        let application = self.enter(call, Action::ConfigurationRollback, name).await?;
        self.vault.require_sealing()?;
        let mut transaction = self.begin(call, Action::ConfigurationRollback, &application).await?;
        let taken = self.take(&mut transaction, &application, identifier, call).await?;
        require_revision(if_revision, taken.before, taken.empty, identifier)?;
        if taken.empty {
            return Err(not_found(&application.name, identifier));
        }
        let sealed = transaction.revision(taken.id, wanted).await?.ok_or_else(|| {
            let message = format!(
                "revision {wanted} of \"{identifier}\" is not kept; `sso config history` lists the revisions that are"
            );
            Error::new(Reason::RevisionNotFound, message)
        })?;
        let bag = self.vault.open(&place(&application, &taken, wanted), &sealed.sealed)?;
        let stored = match self.bag_before(&mut transaction, &application, &taken).await {
            // Going back is the way out of a damaged revision.
            Err(error) if is_damage(&error) => Bag::default(),
            other => other?,
        };
        let new = Put { taken: &taken, stored: &stored, bag: &bag, rolled_back_to: Some(wanted) };
        self.put(&mut transaction, call, &application, new).await?;
        let detail = format!("revision {} with the values of {wanted}", taken.revision);
        let subject = Subject {
            application: application.name.as_str(),
            object: identifier.as_str(),
            detail: &detail,
        };
        self.audit.record(&mut transaction, call, Action::ConfigurationRollback, subject).await?;
        self.commit(transaction, call, Change::Configuration(application.id, taken.id)).await?;
        Ok(taken.revision)
    }

    /// Deletes a configuration with its history and returns the revision number of the deletion;
    /// `None` where there was none. Needs no key, so it works while the master is away.
    ///
    /// # Errors
    /// A missing role, `REVISION_STALE`.
    pub async fn delete(
        &self,
        call: &Call,
        name: &ApplicationName,
        identifier: &Identifier,
        if_revision: Option<Revision>,
    ) -> Result<Option<Revision>, Error> {
        let application = self.enter(call, Action::ConfigurationDelete, name).await?;
        let mut transaction = self.begin(call, Action::ConfigurationDelete, &application).await?;
        let head = transaction.lock_configuration(application.id, identifier).await?;
        let before = head.as_ref().map_or(Revision(0), |head| head.revision);
        let gone = head.as_ref().is_none_or(|head| head.deleted);
        require_revision(if_revision, before, gone, identifier)?;
        let Some(head) = head.filter(|head| !head.deleted) else {
            transaction.rollback().await?;
            return Ok(None);
        };
        let by = call.caller.account.as_str();
        let now = self.clock.now();
        let Some(revision) = transaction.delete_configuration(head.id, by, now).await? else {
            return Ok(None);
        };
        let detail = format!("revision {revision}");
        let subject = Subject {
            application: application.name.as_str(),
            object: head.identifier.as_str(),
            detail: &detail,
        };
        self.audit.record(&mut transaction, call, Action::ConfigurationDelete, subject).await?;
        self.commit(transaction, call, Change::Configuration(application.id, head.id)).await?;
        Ok(Some(revision))
    }

    /// Begins to write. A writer may have to wait for others: what it was allowed before is looked at
    /// again.
    async fn begin(
        &self,
        call: &Call,
        action: Action,
        application: &Application,
    ) -> Result<Transaction, Error> {
        let mut transaction = self.storage.begin().await?;
        let found = transaction.application(&application.name).await?.map(Arc::new);
        let again = self.access.require_in(call, action, &application.name, found)?;
        if again.id != application.id {
            let message = format!("application \"{}\" was created anew meanwhile", again.name);
            return Err(Error::new(Reason::ApplicationNotFound, message));
        }
        Ok(transaction)
    }

    /// Takes the row of the configuration, making it where there is none.
    async fn take<'a>(
        &self,
        transaction: &mut Transaction,
        application: &Application,
        identifier: &'a Identifier,
        call: &Call,
    ) -> Result<Taken<'a>, Error> {
        let by = call.caller.account.as_str();
        let now = self.clock.now();
        // The second turn is for a writer that was first between the two statements.
        for _ in 0..2 {
            let bumped = transaction.bump_revision(application.id, identifier, by, now).await?;
            if let Some(bumped) = bumped {
                let before = Revision(bumped.revision.0.saturating_sub(1));
                let (id, empty) = (bumped.id, bumped.was_deleted);
                return Ok(Taken { id, identifier, revision: bumped.revision, before, empty });
            }
            let id = ConfigurationId::generate();
            if transaction.insert_configuration(id, application.id, identifier, by, now).await? {
                let (revision, before) = (Revision(1), Revision(0));
                return Ok(Taken { id, identifier, revision, before, empty: true });
            }
        }
        let message =
            format!("\"{identifier}\" is being created and deleted at this moment; try again");
        Err(Error::new(Reason::DatabaseUnavailable, message))
    }

    /// Writes the values of the revision that was taken.
    async fn put(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        application: &Application,
        new: Put<'_>,
    ) -> Result<(), Error> {
        let row = self.row(call, application, &new)?;
        transaction.insert_revision(&row).await?;
        Ok(())
    }

    /// The row of the revision, sealed.
    fn row(
        &self,
        call: &Call,
        application: &Application,
        new: &Put<'_>,
    ) -> Result<NewRevision, Error> {
        let place = place(application, new.taken, new.taken.revision);
        let sealed = self.vault.seal(&place, new.bag)?;
        Ok(NewRevision {
            configuration: new.taken.id,
            revision: new.taken.revision,
            sealed: sealed.bytes,
            generation: sealed.generation,
            changed: labels(application, &new.stored.differing(new.bag)),
            rolled_back_to: new.rolled_back_to,
            written_at: self.clock.now(),
            written_by: call.caller.account.as_str().to_owned(),
        })
    }

    /// The values before the write; none where the configuration is new or was deleted.
    async fn bag_before(
        &self,
        transaction: &mut Transaction,
        application: &Application,
        taken: &Taken<'_>,
    ) -> Result<Bag, Error> {
        if taken.empty {
            return Ok(Bag::default());
        }
        let stored = transaction.revision(taken.id, taken.before).await?.ok_or_else(|| {
            let place = place(application, taken, taken.before);
            Error::new(Reason::SealedValueDamaged, format!("the row of {place} is missing"))
        })?;
        self.vault.open(&place(application, taken, taken.before), &stored.sealed)
    }

    async fn commit(
        &self,
        transaction: Transaction,
        call: &Call,
        change: Change,
    ) -> Result<(), Error> {
        self.changes.commit(transaction, Some(call), change, self.clock.now()).await
    }
}

/// What the record says of a write.
fn detail(written: &Written) -> String {
    let detail = format!("revision {}: {}", written.revision, written.written.join(", "));
    if written.cleared.is_empty() {
        return detail;
    }
    format!("{detail}; cleared: {}", written.cleared.join(", "))
}

/// The fields that the labels name, each once.
fn resolve(
    application: &Application,
    values: Vec<(Label, Option<SecretText>)>,
) -> Result<Vec<(Field, Option<SecretText>)>, Error> {
    if values.is_empty() {
        let message = "a write must name at least one field";
        return Err(Error::new(Reason::ValuesEmpty, message));
    }
    let mut resolved: Vec<(Field, Option<SecretText>)> = Vec::with_capacity(values.len());
    for (label, value) in values {
        let field = field(application, &label)?;
        if resolved.iter().any(|(other, _)| other.ordinal == field.ordinal) {
            let message = format!("the field \"{}\" is named twice", field.label);
            return Err(Error::new(Reason::InvalidRequest, message));
        }
        resolved.push((field.clone(), value));
    }
    resolved.sort_by_key(|(field, _)| field.ordinal);
    Ok(resolved)
}

/// The bag after the write, and what the write does to each field.
fn apply(
    application: &Application,
    identifier: &Identifier,
    stored: &Bag,
    values: &[(Field, Option<SecretText>)],
    mode: SetMode,
    first: bool,
) -> Result<(Bag, Written), Error> {
    let mut bag = if mode == SetMode::Replace { Bag::default() } else { stored.clone() };
    let mut written = Vec::new();
    for (field, value) in values {
        match (value, stored.value(field.ordinal)) {
            (None, None) => return Err(nothing_to_keep(field, identifier, first)),
            (None, Some(kept)) => bag.put(field.ordinal, field.label.as_str(), kept.clone())?,
            (Some(value), Some(_)) if mode == SetMode::Add => {
                // Checked all the same, so that a dry run tells the truth.
                Bag::default().put(field.ordinal, field.label.as_str(), value.clone())?;
            }
            (Some(value), _) => {
                bag.put(field.ordinal, field.label.as_str(), value.clone())?;
                written.push(field.ordinal);
            }
        }
    }
    if first {
        require_complete(application, identifier, &bag)?;
    }
    let kept = bag.ordinals().filter(|ordinal| !written.contains(ordinal)).collect::<Vec<_>>();
    let cleared =
        stored.ordinals().filter(|ordinal| bag.value(*ordinal).is_none()).collect::<Vec<_>>();
    let done = Written {
        revision: Revision(0),
        created: first,
        written: labels(application, &written),
        kept: labels(application, &kept),
        cleared: labels(application, &cleared),
    };
    Ok((bag, done))
}

fn nothing_to_keep(field: &Field, identifier: &Identifier, first: bool) -> Error {
    let label = &field.label;
    if first {
        let message = format!(
            "\"{label}\" is to be kept, but nothing has been set under \"{identifier}\" yet"
        );
        Error::new(Reason::KeepMissing, message)
    } else {
        let message =
            format!("\"{label}\" is to be kept, but it has no value under \"{identifier}\"");
        Error::new(Reason::KeepEmpty, message)
    }
}

fn require_complete(
    application: &Application,
    identifier: &Identifier,
    bag: &Bag,
) -> Result<(), Error> {
    let missing: Vec<_> = application
        .fields
        .iter()
        .filter(|field| field.ordinal != 0 && bag.value(field.ordinal).is_none())
        .map(|field| field.label.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Reason::ValuesIncomplete,
        format!(
            "the first write of \"{identifier}\" must supply every field; missing: {}",
            missing.join(", ")
        ),
    ))
}

fn labels(application: &Application, ordinals: &[u16]) -> Vec<String> {
    ordinals
        .iter()
        .filter_map(|&ordinal| application.fields.by_ordinal(ordinal))
        .map(|field| field.label.as_str().to_owned())
        .collect()
}

fn place(application: &Application, taken: &Taken<'_>, revision: Revision) -> BagPlace {
    BagPlace::configuration(application.id, taken.id, taken.identifier, revision)
}

fn is_damage(error: &Error) -> bool {
    matches!(error.reason, Reason::SealedValueDamaged | Reason::GenerationMissing)
}
