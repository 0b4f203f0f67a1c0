//! Many mappings in one request. Each has an outcome of its own; one that is refused stops no other.
//!
//! The mappings of one application are written in chunks, each one transaction with its records of the
//! audit and one change, so that neither the writer of the database nor the servers that are told of
//! changes are kept busy for long.

use std::{collections::BTreeMap, sync::Arc};

use sso_proto::Reason;

use super::{
    Mappings, NewMapping, counterpart_of, rules,
    write::{created_detail, require_deletable, subject},
};
use crate::{
    access::{Action, Call},
    changes::Change,
    error::Error,
    lookup,
    model::{Account, Application, ApplicationName, ExternalUser, Mapping, MappingKey},
    storage::Transaction,
};

/// Mappings written in one transaction.
const CHUNK: usize = 200;
/// Applications of one batch.
const APPLICATIONS: usize = 100;

/// Names a mapping to delete. Where both sides are given, both must fit.
#[derive(Clone, Debug)]
pub struct MappingToDelete {
    /// The application.
    pub application: ApplicationName,
    /// Its account.
    pub account: Option<Account>,
    /// Its external user.
    pub external_user: Option<ExternalUser>,
}

/// How a batch ended.
#[derive(Debug, Default)]
pub struct BatchOutcome {
    /// Those that were refused: place in the request, and why.
    pub refused: Vec<(u32, Error)>,
    /// How many were done, or would have been.
    pub done: u32,
}

impl BatchOutcome {
    fn add(&mut self, part: Self) {
        self.done = self.done.saturating_add(part.done);
        self.refused.extend(part.refused);
    }

    fn refuse(&mut self, indexes: &[u32], error: &Error) {
        self.refused.extend(indexes.iter().map(|&index| (index, error.clone())));
    }
}

/// One of a batch, with its place in the request.
#[derive(Debug)]
struct Item {
    index: u32,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Create(NewMapping),
    Delete(MappingToDelete),
}

impl Mappings {
    /// Creates those that can be, each with its place in the request. With `dry_run` nothing is changed,
    /// but everything is checked as if it were, one against the other too.
    ///
    /// # Errors
    /// Only what stops all of them: an outage before anything was written, or `INVALID_REQUEST` for
    /// mappings of more than 100 applications.
    pub async fn create_batch(
        &self,
        call: &Call,
        new: Vec<(u32, NewMapping)>,
        dry_run: bool,
    ) -> Result<BatchOutcome, Error> {
        let items = new.into_iter().map(|(index, new)| Item { index, work: Work::Create(new) });
        self.batch(call, Action::MappingCreate, items.collect(), dry_run).await
    }

    /// Deletes those that can be; one that is missing is refused. As [`Self::create_batch`].
    ///
    /// # Errors
    /// As [`Self::create_batch`].
    pub async fn delete_batch(
        &self,
        call: &Call,
        unwanted: Vec<(u32, MappingToDelete)>,
        dry_run: bool,
    ) -> Result<BatchOutcome, Error> {
        let items =
            unwanted.into_iter().map(|(index, which)| Item { index, work: Work::Delete(which) });
        self.batch(call, Action::MappingDelete, items.collect(), dry_run).await
    }

    /// Who may not is told so before a transaction begins: those who have no role never take the writer,
    /// nor a connection that holds one while it waits for another.
    async fn batch(
        &self,
        call: &Call,
        action: Action,
        items: Vec<Item>,
        dry_run: bool,
    ) -> Result<BatchOutcome, Error> {
        let mut outcome = BatchOutcome::default();
        let mut entered = Vec::new();
        for chunk in chunks(items, dry_run)? {
            match self.enter(call, action, &chunk.application).await {
                Ok(application) => entered.push((application, chunk.items)),
                Err(error) if is_outage(&error) => return Err(error),
                Err(error) => outcome.refuse(&indexes(&chunk.items), &error),
            }
        }
        if dry_run {
            self.rehearse(call, action, entered, &mut outcome).await?;
        } else {
            self.write_all(call, action, entered, &mut outcome).await?;
        }
        outcome.refused.sort_by_key(|(index, _)| *index);
        Ok(outcome)
    }

    /// Writes chunk after chunk. After an outage the rest is not tried.
    async fn write_all(
        &self,
        call: &Call,
        action: Action,
        entered: Vec<Entered>,
        outcome: &mut BatchOutcome,
    ) -> Result<(), Error> {
        let mut broken: Option<Error> = None;
        for chunk in entered {
            let indexes = indexes(&chunk.1);
            let result = match &broken {
                Some(error) => Err(error.clone()),
                None => self.write(call, action, chunk).await,
            };
            match result {
                Ok(part) => outcome.add(part),
                Err(error) => {
                    if is_outage(&error) && broken.is_none() {
                        // Nothing was written, so the request as a whole can be made again.
                        if outcome.done == 0 {
                            return Err(error);
                        }
                        broken = Some(error.clone());
                    }
                    outcome.refuse(&indexes, &error);
                }
            }
        }
        Ok(())
    }

    /// Writes one chunk: all that can be of it, or nothing.
    async fn write(
        &self,
        call: &Call,
        action: Action,
        (entered, items): Entered,
    ) -> Result<BatchOutcome, Error> {
        let (mut transaction, application) = self.begin(call, action, &entered).await?;
        let (mappings, refused) =
            self.work_off(&mut transaction, call, &application, items).await?;
        if mappings.is_empty() {
            transaction.rollback().await?;
            return Ok(BatchOutcome { refused, done: 0 });
        }
        let created = action == Action::MappingCreate;
        let detail = |mapping: &Mapping| {
            if created {
                created_detail(&application, mapping)
            } else {
                counterpart_of(&application, mapping)
            }
        };
        let details: Vec<_> = mappings.iter().map(detail).collect();
        let subjects = mappings.iter().zip(&details);
        let subjects: Vec<_> =
            subjects.map(|(mapping, detail)| subject(&application, mapping, detail)).collect();
        self.audit.record_all(&mut transaction, call, action, &subjects).await?;
        let change = match &*mappings {
            [only] => Change::Mapping(application.id, only.id),
            _ => Change::Mappings(application.id),
        };
        self.commit(transaction, call, change).await?;
        Ok(BatchOutcome { refused, done: count(&mappings) })
    }

    /// As [`Self::write_all`], in one transaction that is undone.
    async fn rehearse(
        &self,
        call: &Call,
        action: Action,
        entered: Vec<Entered>,
        outcome: &mut BatchOutcome,
    ) -> Result<(), Error> {
        if entered.is_empty() {
            return Ok(());
        }
        let mut transaction = self.storage.begin_long().await?;
        for (application, items) in entered {
            let indexes = indexes(&items);
            let application = match self.hold(&mut transaction, call, action, &application).await {
                Ok(application) => application,
                Err(error) if is_outage(&error) => return Err(error),
                Err(error) => {
                    outcome.refuse(&indexes, &error);
                    continue;
                }
            };
            let (mappings, refused) =
                self.work_off(&mut transaction, call, &application, items).await?;
            outcome.add(BatchOutcome { refused, done: count(&mappings) });
        }
        Ok(transaction.rollback().await?)
    }

    /// The mappings done, and the refusals of the others.
    async fn work_off(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        application: &Application,
        items: Vec<Item>,
    ) -> Result<(Vec<Mapping>, Vec<(u32, Error)>), Error> {
        let (mut done, mut refused) = (Vec::with_capacity(items.len()), Vec::new());
        for Item { index, work } in items {
            let result = match work {
                Work::Create(new) => self.create_one(transaction, call, application, &new).await,
                Work::Delete(which) => {
                    self.delete_one(transaction, call, application, &which).await
                }
            };
            match result {
                Ok(mapping) => done.push(mapping),
                Err(error) if is_outage(&error) => return Err(error),
                Err(error) => refused.push((index, error)),
            }
        }
        Ok((done, refused))
    }

    async fn create_one(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        application: &Application,
        new: &NewMapping,
    ) -> Result<Mapping, Error> {
        let (draft, _) = self.draft(call, application, new)?;
        self.insert(transaction, call, application, draft).await
    }

    async fn delete_one(
        &self,
        transaction: &mut Transaction,
        call: &Call,
        application: &Application,
        which: &MappingToDelete,
    ) -> Result<Mapping, Error> {
        let key = which.account.clone().map(MappingKey::Account);
        let control = self.control(call, application, key.as_ref())?;
        let key = which.key(call, application)?;
        let held = self.lock(transaction, call, application, control, &key).await?;
        if let Some(mapping) = &held {
            require_deletable(application, mapping, control)?;
        }
        let mapping = held
            .filter(|mapping| which.fits(mapping))
            .ok_or_else(|| which.not_found(application))?;
        transaction.delete_mapping(mapping.id).await?;
        Ok(mapping)
    }
}

impl MappingToDelete {
    /// The side that names the mapping in an application of this type.
    fn key(&self, call: &Call, application: &Application) -> Result<MappingKey, Error> {
        let account = self.account.clone().map(MappingKey::Account);
        let external_user = self.external_user.clone().map(MappingKey::ExternalUser);
        let first = match application.windows_account {
            Some(_) => external_user,
            None => account.or(external_user),
        };
        let first = first.ok_or_else(|| {
            let message = "name the mapping by its account or, in a host group application, by its external user";
            Error::new(Reason::InvalidRequest, message)
        })?;
        rules::key(call, application, Some(first))
    }

    fn fits(&self, mapping: &Mapping) -> bool {
        self.account.as_ref().is_none_or(|account| *account == mapping.account)
            && self.external_user.as_ref().is_none_or(|user| *user == mapping.external_user)
    }

    fn not_found(&self, application: &Application) -> Error {
        match (&self.account, &self.external_user) {
            (Some(account), Some(user)) => {
                let message = format!(
                    "application \"{}\" has no mapping of {account} to external user {user}",
                    application.name
                );
                Error::new(Reason::MappingNotFound, message)
            }
            (Some(account), None) => {
                lookup::not_found(application, &MappingKey::Account(account.clone()))
            }
            (None, Some(user)) => {
                lookup::not_found(application, &MappingKey::ExternalUser(user.clone()))
            }
            (None, None) => Error::new(Reason::MappingNotFound, "no mapping was named"),
        }
    }
}

impl Work {
    fn application(&self) -> &ApplicationName {
        match self {
            Self::Create(new) => &new.application,
            Self::Delete(which) => &which.application,
        }
    }
}

/// Items of one application, in the order of the request.
struct Chunk {
    application: ApplicationName,
    items: Vec<Item>,
}

/// A chunk whose application the caller may do this to.
type Entered = (Arc<Application>, Vec<Item>);

/// The items by application, in the order of names so that two requests do not wait for each other, and
/// not more than one transaction should hold; those of a rehearsal all share one.
///
/// # Errors
/// `INVALID_REQUEST` for too many applications.
fn chunks(items: Vec<Item>, dry_run: bool) -> Result<Vec<Chunk>, Error> {
    let mut by_application: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in items {
        by_application.entry(item.work.application().key().to_owned()).or_default().push(item);
    }
    if by_application.len() > APPLICATIONS {
        let message = format!(
            "a batch is of {APPLICATIONS} applications at the most, not {}; send several",
            by_application.len()
        );
        return Err(Error::new(Reason::InvalidRequest, message));
    }
    let most = if dry_run { usize::MAX } else { CHUNK };
    let mut chunks: Vec<Chunk> = Vec::new();
    for item in by_application.into_values().flatten() {
        match chunks.last_mut() {
            Some(last)
                if last.application == *item.work.application() && last.items.len() < most =>
            {
                last.items.push(item);
            }
            Some(_) | None => {
                let application = item.work.application().clone();
                chunks.push(Chunk { application, items: vec![item] });
            }
        }
    }
    Ok(chunks)
}

fn indexes(items: &[Item]) -> Vec<u32> {
    items.iter().map(|item| item.index).collect()
}

fn count(mappings: &[Mapping]) -> u32 {
    u32::try_from(mappings.len()).unwrap_or(u32::MAX)
}

/// Whether trying another one makes no sense: the fault is not that of the item.
fn is_outage(error: &Error) -> bool {
    matches!(
        error.reason,
        Reason::DatabaseUnavailable | Reason::AuditUnavailable | Reason::Internal
    )
}
