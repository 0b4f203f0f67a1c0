//! `sso.v1.ConfigStore`.

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{Stream, StreamExt as _, stream};
use sso_core::secret::SecretText;
use sso_proto::{
    Reason,
    v1::{self, batch_get_configurations_result::Result as Got, config_store_server::ConfigStore},
};
use tonic::{Request, Response, Status};

use super::{
    Handlers, MAX_WATCHES,
    convert::{known, timestamp},
    entry::call_of,
    status::{about, status},
};
use crate::{
    access::{Action, Call},
    config_store::{Configuration, ConfigurationChange, ReadMode, SetMode, WatchTarget, Write},
    error::Error,
    model::{
        ApplicationName, ApplicationType, ConfigurationHead, Identifier, Label, PageRequest,
        Revision, RevisionEntry,
    },
};

/// Configurations that one request may read or watch.
const BATCH: usize = 100;
/// Configurations of a batch that are read side by side, so that the records of their reveals share
/// transactions, and one request does not take every connection to the database.
const SIDE_BY_SIDE: usize = 8;
/// Bytes of values after which the rest of a batch is refused.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// The list that page tokens are of.
const IDENTIFIERS: &str = "identifiers";

#[tonic::async_trait]
impl ConfigStore for Handlers {
    async fn set(
        &self,
        request: Request<v1::SetConfigurationRequest>,
    ) -> Result<Response<v1::SetConfigurationResponse>, Status> {
        let (call, mut message) = call_of(request)?;
        let name = std::mem::take(&mut message.application);
        self.respond(&call, Action::ConfigurationSet, &name, async {
            let (application, identifier) = key(&name, &message.identifier)?;
            let write = write(message)?;
            let written =
                self.house.config_store.set(&call, &application, &identifier, write).await?;
            Ok(v1::SetConfigurationResponse {
                revision: written.revision.0,
                created: written.created,
                written: written.written,
                kept: written.kept,
                cleared: written.cleared,
            })
        })
        .await
    }

    async fn get(
        &self,
        request: Request<v1::GetConfigurationRequest>,
    ) -> Result<Response<v1::GetConfigurationResponse>, Status> {
        let (call, message) = call_of(request)?;
        let mode = message.mode();
        self.respond(&call, read_mode(mode).action(), &message.application, async {
            let (application, identifier) = key(&message.application, &message.identifier)?;
            known::<v1::ReadMode>("mode", message.mode)?;
            let fields = labels(&message.fields)?;
            let store = &self.house.config_store;
            let read =
                store.get(&call, &application, &identifier, read_mode(mode), &fields).await?;
            Ok(v1::GetConfigurationResponse { configuration: Some(configuration(read)) })
        })
        .await
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetConfigurationsRequest>,
    ) -> Result<Response<v1::BatchGetConfigurationsResponse>, Status> {
        let (call, message) = call_of(request)?;
        let mode = read_mode(message.mode());
        self.respond(&call, mode.action(), "", async {
            counted("keys", message.keys.len())?;
            known::<v1::ReadMode>("mode", message.mode)?;
            let read = AtomicUsize::new(0);
            let results = stream::iter(message.keys)
                .map(|wanted| self.read_one(&call, wanted, mode, &read))
                .buffered(SIDE_BY_SIDE)
                .collect();
            Ok(v1::BatchGetConfigurationsResponse { results: results.await })
        })
        .await
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteConfigurationRequest>,
    ) -> Result<Response<v1::DeleteConfigurationResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ConfigurationDelete, &message.application, async {
            let (application, identifier) = key(&message.application, &message.identifier)?;
            let expected = message.if_revision.map(Revision);
            let store = &self.house.config_store;
            let deleted = store.delete(&call, &application, &identifier, expected).await?;
            Ok(v1::DeleteConfigurationResponse {
                existed: deleted.is_some(),
                revision: deleted.map_or(0, |revision| revision.0),
            })
        })
        .await
    }

    async fn list_identifiers(
        &self,
        request: Request<v1::ListIdentifiersRequest>,
    ) -> Result<Response<v1::ListIdentifiersResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ConfigurationList, &message.application, async {
            let application = ApplicationName::parse(&message.application)?;
            let page = PageRequest::parse(IDENTIFIERS, message.page_size, &message.page_token)?;
            let page = self.house.config_store.list(&call, &application, page).await?;
            Ok(v1::ListIdentifiersResponse {
                next_page_token: page.next_token(IDENTIFIERS),
                identifiers: page.entries.into_iter().map(identifier_entry).collect(),
            })
        })
        .await
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ConfigurationHistory, &message.application, async {
            let (application, identifier) = key(&message.application, &message.identifier)?;
            let history = self.house.config_store.history(&call, &application, &identifier).await?;
            Ok(v1::HistoryResponse { revisions: history.into_iter().map(revision_entry).collect() })
        })
        .await
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackConfigurationRequest>,
    ) -> Result<Response<v1::RollbackConfigurationResponse>, Status> {
        let (call, message) = call_of(request)?;
        self.respond(&call, Action::ConfigurationRollback, &message.application, async {
            let (application, identifier) = key(&message.application, &message.identifier)?;
            let wanted = Revision(message.revision);
            let expected = message.if_revision.map(Revision);
            let store = &self.house.config_store;
            let written =
                store.rollback(&call, &application, &identifier, wanted, expected).await?;
            Ok(v1::RollbackConfigurationResponse { revision: written.0 })
        })
        .await
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<v1::ConfigurationChange, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<v1::WatchConfigurationsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (call, message) = call_of(request)?;
        let name = message.targets.first().map_or("", |target| &target.application);
        let seat = self.watches.take(&call.caller.account);
        let watching = async {
            let seat = seat.ok_or_else(|| {
                let why = format!("{} has {MAX_WATCHES} watches open", call.caller.account);
                Error::new(Reason::Overloaded, why)
            })?;
            counted("targets", message.targets.len())?;
            let targets = message.targets.iter().map(watch_target).collect::<Result<_, _>>()?;
            Ok((self.house.config_store.watch(&call, targets).await?, seat))
        };
        let (changes, seat) =
            self.answer(&call, Action::ConfigurationWatch, name, watching).await?;
        let messages = changes.map(move |news| {
            // Given back when the stream is dropped.
            let _seat = &seat;
            news.map(change).map_err(|error| status(error, &call))
        });
        let answer: Response<Self::WatchStream> = Response::new(Box::pin(messages));
        Ok(about(answer, Action::ConfigurationWatch, name))
    }
}

impl Handlers {
    /// One part of a batch: what `get` would have answered. Counts the bytes of values read.
    async fn read_one(
        &self,
        call: &Call,
        wanted: v1::ConfigurationKey,
        mode: ReadMode,
        bytes: &AtomicUsize,
    ) -> v1::BatchGetConfigurationsResult {
        let read = async {
            require_room(bytes.load(Ordering::Relaxed))?;
            let (application, identifier) = key(&wanted.application, &wanted.identifier)?;
            self.house.config_store.get(call, &application, &identifier, mode, &[]).await
        };
        let result = match self.answer(call, mode.action(), &wanted.application, read).await {
            Ok(read) => {
                let size = read.values.iter().map(|(_, value)| value.len()).sum();
                bytes.fetch_add(size, Ordering::Relaxed);
                Got::Configuration(configuration(read))
            }
            Err(status) => Got::Refusal(refusal(&status)),
        };
        v1::BatchGetConfigurationsResult { key: Some(wanted), result: Some(result) }
    }
}

fn key(application: &str, identifier: &str) -> Result<(ApplicationName, Identifier), Error> {
    Ok((ApplicationName::parse(application)?, Identifier::parse(identifier)?))
}

fn labels(fields: &[String]) -> Result<Vec<Label>, Error> {
    let most = ApplicationType::ConfigStore.max_fields();
    if fields.len() > most {
        return Err(Error::new(
            Reason::InvalidRequest,
            "more fields are named than any application has",
        ));
    }
    fields.iter().map(|label| Label::parse(label)).collect()
}

fn counted(what: &str, count: usize) -> Result<(), Error> {
    if (1..=BATCH).contains(&count) {
        return Ok(());
    }
    Err(Error::new(Reason::InvalidRequest, format!("{count} {what} are named; name 1 to {BATCH}")))
}

fn require_room(bytes: usize) -> Result<(), Error> {
    if bytes < MAX_BATCH_BYTES {
        return Ok(());
    }
    let message = format!(
        "the values before this one have {} MiB; ask for it in another request",
        bytes >> 20
    );
    Err(Error::new(Reason::Overloaded, message))
}

fn write(mut message: v1::SetConfigurationRequest) -> Result<Write, Error> {
    let mode = match known("mode", message.mode)? {
        v1::SetMode::Merge => SetMode::Merge,
        v1::SetMode::Add => SetMode::Add,
        v1::SetMode::Replace => SetMode::Replace,
    };
    let mut values = Vec::with_capacity(message.values.len());
    for (label, mut value) in message.values.drain() {
        values.push((Label::parse(&label)?, value.value.take().map(SecretText::new)));
    }
    Ok(Write {
        values,
        if_revision: message.if_revision.map(Revision),
        mode,
        dry_run: message.dry_run,
    })
}

fn read_mode(mode: v1::ReadMode) -> ReadMode {
    match mode {
        v1::ReadMode::Admin => ReadMode::Admin,
        v1::ReadMode::Runtime => ReadMode::Runtime,
    }
}

/// Expose: the values leave the process here, to the caller that `ConfigStore::get` let have them.
fn configuration(read: Configuration) -> v1::Configuration {
    let value = |(label, value): (String, SecretText)| (label, value.expose().to_owned());
    v1::Configuration {
        application: read.application,
        identifier: read.identifier,
        revision: read.revision.0,
        values: read.values.into_iter().map(value).collect(),
        masked: read.masked,
        updated_at: Some(timestamp(read.updated_at)),
        updated_by: read.updated_by,
    }
}

fn identifier_entry(head: ConfigurationHead) -> v1::IdentifierEntry {
    v1::IdentifierEntry {
        identifier: head.identifier.as_str().to_owned(),
        revision: head.revision.0,
        updated_at: Some(timestamp(head.updated_at)),
        updated_by: head.updated_by,
    }
}

fn revision_entry(entry: RevisionEntry) -> v1::RevisionEntry {
    v1::RevisionEntry {
        revision: entry.revision.0,
        written_at: Some(timestamp(entry.written_at)),
        written_by: entry.written_by,
        changed: entry.changed,
        rolled_back_to: entry.rolled_back_to.map(|revision| revision.0),
    }
}

fn change(change: ConfigurationChange) -> v1::ConfigurationChange {
    v1::ConfigurationChange {
        application: change.application,
        identifier: change.identifier,
        revision: change.revision.0,
        deleted: change.deleted,
    }
}

fn refusal(status: &Status) -> v1::Refusal {
    let refusal = sso_proto::Refusal::from_status(status);
    let reason = refusal.map(|refusal| refusal.reason);
    v1::Refusal {
        code: status.code().into(),
        reason: reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
        event: reason.and_then(Reason::event).unwrap_or_default(),
        message: status.message().to_owned(),
    }
}

fn watch_target(target: &v1::WatchTarget) -> Result<WatchTarget, Error> {
    let identifier = match target.identifier.as_str() {
        "" => None,
        text => Some(Identifier::parse(text)?),
    };
    Ok(WatchTarget { application: ApplicationName::parse(&target.application)?, identifier })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_does_not_grow_without_bound() {
        assert!(require_room(MAX_BATCH_BYTES - 1).is_ok());
        let full = require_room(MAX_BATCH_BYTES).unwrap_err();
        assert_eq!(full.reason, Reason::Overloaded);
    }

    #[test]
    fn a_mode_of_a_newer_client_is_not_taken_for_another() {
        let message = v1::SetConfigurationRequest { mode: 99, ..Default::default() };
        assert_eq!(write(message).unwrap_err().reason, Reason::InvalidRequest);
    }
}
