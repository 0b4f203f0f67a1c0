//! A configuration that a test changes while it is watched.

use std::{collections::HashMap, pin::Pin};

use sso_client::v1::{self, ConfigurationChange};
use sso_proto::{Reason, Refusal};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::Status;

/// What a test says about the one configuration there is.
pub(crate) struct Live {
    sender: watch::Sender<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    revision: u64,
    values: Option<HashMap<String, String>>,
    /// Counts the times that every stream was broken.
    broken: u32,
}

pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<ConfigurationChange, Status>> + Send>>;

impl Default for Live {
    fn default() -> Self {
        Self { sender: watch::channel(State::default()).0 }
    }
}

impl Live {
    /// A new revision.
    pub(crate) fn set(&self, values: &[(&str, &str)]) {
        let values = values.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        let values = Some(values.collect());
        self.sender.send_modify(|state| {
            state.revision += 1;
            state.values = values;
        });
    }

    pub(crate) fn delete(&self) {
        self.sender.send_modify(|state| {
            state.revision += 1;
            state.values = None;
        });
    }

    /// Ends every watch, as a server does that goes down.
    pub(crate) fn break_watches(&self) {
        self.sender.send_modify(|state| state.broken += 1);
    }

    pub(super) fn is_used(&self) -> bool {
        self.sender.borrow().revision > 0
    }

    pub(super) fn configuration(
        &self,
        request: v1::GetConfigurationRequest,
    ) -> Result<v1::Configuration, Status> {
        let state = self.sender.borrow().clone();
        let gone = || Refusal::new(Reason::ConfigurationNotFound, "nothing is set");
        Ok(v1::Configuration {
            application: request.application,
            identifier: request.identifier,
            revision: state.revision,
            values: state.values.ok_or_else(gone)?,
            ..Default::default()
        })
    }

    /// The revision of now, and every later one.
    pub(super) fn changes(&self) -> Changes {
        let changes = self.sender.subscribe();
        let broken = changes.borrow().broken;
        let stream = WatchStream::new(changes).map(move |state| {
            if state.broken != broken {
                return Err(Status::unavailable("going down"));
            }
            Ok(ConfigurationChange {
                application: "App".into(),
                identifier: "Id".into(),
                revision: state.revision,
                deleted: state.values.is_none(),
            })
        });
        Box::pin(stream)
    }
}
