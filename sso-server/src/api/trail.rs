//! What the log says of each request that was done or refused, as far as an administrator of this
//! server wants to know (ESSO.md 7.4, events 10535 and 10536). The audit in the database is another
//! matter: it has every change, reveal and denial whatever is set here.

use std::net::SocketAddr;

use http::{HeaderValue, Response};
use sso_core::local::LocalPeer;
use sso_proto::{Event, Refusal};
use tonic::{Code, Status, body::Body};
use uuid::Uuid;

use super::convert::cut;
use crate::{
    access::{Action, Effect},
    model::ServerSettings,
};

/// What a request was about: put beside the answer by its handler, taken by the door. It does not
/// leave this process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of application {application:?}", action.as_str())]
pub(super) struct About {
    action: Action,
    /// As the request names it, cut to what a log line bears.
    application: String,
}

impl About {
    pub(super) fn new(action: Action, application: &str) -> Self {
        Self { action, application: cut(application).to_owned() }
    }

    fn of(response: &Response<Body>) -> Option<&Self> {
        let extensions = response.extensions();
        let refused = || {
            let source = std::error::Error::source(extensions.get::<Status>()?)?;
            source.downcast_ref::<Self>()
        };
        extensions.get::<Self>().or_else(refused)
    }
}

/// What the door knows of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trail<'a> {
    pub(super) function: &'a str,
    pub(super) request_id: Uuid,
    pub(super) address: Option<SocketAddr>,
    pub(super) local: Option<&'a LocalPeer>,
    pub(super) agent: Option<&'a HeaderValue>,
    /// Empty where it is not known.
    pub(super) caller: &'a str,
}

impl Trail<'_> {
    /// Logs how the request ended, where the settings of this server want that. `action` is that of
    /// the method; a handler that answered knows better. Gives back the code.
    pub(super) fn end(
        &self,
        wanted: ServerSettings,
        action: Option<Action>,
        response: &Response<Body>,
    ) -> Code {
        let status = Status::from_header_map(response.headers());
        let code = status.as_ref().map_or(Code::Ok, Status::code);
        let about = About::of(response);
        let action = about.map(|about| about.action).or(action);
        if !is_wanted(wanted, action, code) {
            return code;
        }
        let Self { request_id, caller, .. } = self;
        let function = cut(self.function);
        let (client, agent) = (self.client(), self.agent());
        let action = action.map_or("", Action::as_str);
        let application = about.map_or("", |about| &about.application);
        match status {
            Some(status) if code != Code::Ok => {
                let refusal = Refusal::from_status(&status);
                let reason = refusal.map_or("", |refusal| refusal.reason.as_str());
                tracing::warn!(event = Event::RequestRefused.number(), function, %request_id, client, agent, caller, action, application, ?code, reason, "request refused");
            }
            _ => {
                tracing::info!(event = Event::RequestDone.number(), function, %request_id, client, agent, caller, action, application, "request done");
            }
        }
        code
    }

    /// The address of the client; of one on the same machine, its process and program.
    fn client(&self) -> String {
        let address = || self.address.map(|address| address.to_string()).unwrap_or_default();
        self.local.map_or_else(address, process_of)
    }

    fn agent(&self) -> &str {
        self.agent.and_then(|agent| agent.to_str().ok()).map_or("", cut)
    }
}

fn process_of(peer: &LocalPeer) -> String {
    let pid = peer.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
    format!("pid {pid} ({})", peer.program.as_deref().unwrap_or_default())
}

/// Whether a request of this kind that ended so is worth a line.
pub(super) fn is_wanted(settings: ServerSettings, action: Option<Action>, code: Code) -> bool {
    match code {
        Code::Ok => {
            let level = match action.map_or(Effect::Read, Action::effect) {
                Effect::Change => 1,
                Effect::Reveal => 2,
                Effect::Read => 3,
            };
            settings.positive_audit_level >= level
        }
        Code::PermissionDenied | Code::Unauthenticated => settings.negative_audit_level >= 1,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => settings.negative_audit_level >= 2,
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => settings.negative_audit_level >= 3,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_level_holds_the_ones_below() {
        let settings = |positive_audit_level, negative_audit_level| ServerSettings {
            positive_audit_level,
            negative_audit_level,
            ..ServerSettings::default()
        };
        for (action, code, from_positive, from_negative) in [
            (Action::ApplicationUpdate, Code::Ok, 1, 4),
            (Action::CredentialsReveal, Code::Ok, 2, 4),
            (Action::ApplicationList, Code::Ok, 3, 4),
            (Action::ApplicationUpdate, Code::PermissionDenied, 4, 1),
            (Action::ApplicationUpdate, Code::Unauthenticated, 4, 1),
            (Action::ApplicationUpdate, Code::InvalidArgument, 4, 2),
            (Action::ApplicationUpdate, Code::Unavailable, 4, 3),
        ] {
            for level in 0..=3 {
                let shown = (action, code, level);
                let positive = is_wanted(settings(level, 0), Some(action), code);
                assert_eq!(positive, level >= from_positive, "{shown:?}");
                let negative = is_wanted(settings(0, level), Some(action), code);
                assert_eq!(negative, level >= from_negative, "{shown:?}");
            }
        }
    }

    #[test]
    fn what_a_request_was_about_is_found_beside_answers_and_refusals() {
        let about = About::new(Action::ConfigurationReveal, "Orders");
        let mut done = Response::new(Body::empty());
        done.extensions_mut().insert(about.clone());
        assert_eq!(About::of(&done), Some(&about));
        let mut status = Status::not_found("nothing");
        status.set_source(Arc::new(about.clone()));
        let refused: Response<Body> = status.into_http();
        assert_eq!(About::of(&refused), Some(&about));
        assert_eq!(About::of(&Status::not_found("nothing").into_http()), None);
        // It stays in the process: neither header nor body has it.
        assert!(!format!("{:?}", refused.headers()).contains("Orders"));
    }
}
