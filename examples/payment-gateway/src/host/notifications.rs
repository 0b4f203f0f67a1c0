//! The receive location for payment notifications.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use sso_client::integration::{Followed, HttpsPeer, ListenerControl, Parties};
use sso_core::clock::Clock;

use super::{
    agreement::Agreement,
    outbox::{Noted, Outbox},
};
use crate::web::{BODY_MAX, Refusal, json};

/// What taking notifications needs.
pub(super) struct Notifications {
    pub(super) outbox: Outbox,
    pub(super) parties: Followed<Parties>,
    pub(super) agreement: Followed<Agreement>,
    pub(super) control: ListenerControl,
    pub(super) clock: Clock,
}

/// An acknowledgement: whoever gets it need not repeat the notification.
#[derive(Serialize)]
struct Acknowledged {
    booked: &'static str,
}

pub(super) fn router(notifications: Arc<Notifications>) -> Router {
    // The path is that of the receive location, which may change.
    Router::new().fallback(handle).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(notifications)
}

async fn handle(
    State(notifications): State<Arc<Notifications>>,
    ConnectInfo(peer): ConnectInfo<HttpsPeer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let path = notifications.control.location().path.clone();
    if method != Method::POST || uri.path().trim_end_matches('/') != path.trim_end_matches('/') {
        let message = format_args!("post notifications to {path}");
        return Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message).into_response();
    }
    match notifications.take(&peer, &body).await {
        Ok(booked) => {
            metrics::counter!("payment_host_notifications_total", "outcome" => booked).increment(1);
            json(StatusCode::OK, &Acknowledged { booked })
        }
        Err(refusal) => {
            metrics::counter!("payment_host_notifications_total", "outcome" => "refused")
                .increment(1);
            tracing::warn!(
                peer = %peer.addr(), error = refusal.error, words = %refusal.message,
                "a notification is refused"
            );
            refusal.into_response()
        }
    }
}

impl Notifications {
    /// Who posts it is proved by the certificate, what it says by the signature.
    async fn take(&self, peer: &HttpsPeer, body: &[u8]) -> Result<&'static str, Refusal> {
        let forbidden =
            |error, message: String| Refusal::new(StatusCode::FORBIDDEN, error, message);
        let agreement = self.agreement.current();
        let party = peer
            .party(&self.parties.current())
            .map_err(|error| forbidden(error.as_str(), error.to_string()))?;
        if party.name != agreement.gateway {
            let message = format!("the party {} is not {}", party.name, agreement.gateway);
            return Err(forbidden("PARTY_NOT_ALLOWED", message));
        }
        let notification = agreement
            .verifier
            .verify(body)
            .map_err(|error| forbidden("NOTIFICATION_REFUSED", error.to_string()))?;
        let noted = self
            .outbox
            .paid(&party.name, &notification, self.clock.now())
            .await
            .map_err(|error| Refusal::store(&error))?;
        let (id, key) = (notification.id, notification.bill);
        match noted {
            Noted::Now => {
                tracing::info!(%id, %key, party = party.name, "a bill is paid");
                Ok("now")
            }
            Noted::Before => {
                tracing::info!(%id, %key, party = party.name, "a notification came again");
                Ok("before")
            }
            Noted::UnknownBill => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "BILL_UNKNOWN",
                format_args!("there is no bill {key} here"),
            )),
            Noted::Contradiction(what) => {
                Err(Refusal::new(StatusCode::CONFLICT, "NOTIFICATION_CONTRADICTS", what))
            }
        }
    }
}
