//! The receive location for bills: a portal hands in a bill for a user of its own, and the host
//! accepts it together with a ticket for that user.
//!
//! `POST PATH` with a bill hands it in; again with the same number and content it tells the state, and
//! sets a bill going that stands still for want of a sign-on. `GET PATH/NUMBER` tells the state.
//!
//! For whom the bill travels the portal says in one of two ways:
//!
//! * `Authorization: Bearer …`, the token of the user: the host, a trusted host, has a ticket issued
//!   for the user, after the secret store has verified the token.
//! * `SSOTicket` and `OriginatorSID`, both: the user had a ticket issued, and the portal says who it
//!   is. That the two belong together is verified when the ticket is redeemed.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use sso_client::{
    Client, ClientError,
    integration::{
        Again, Followed, HttpsPeer, ListenerControl, MessageContext, Parties, SendPort, SignOn,
        redeem,
    },
};
use sso_core::{clock::Clock, secret::SecretText};
use tokio::sync::Notify;

use super::{
    agreement::Agreement,
    outbox::{BillStatus, Known, Outbox},
};
use crate::{
    bill::Bill,
    web::{BODY_MAX, Refusal, json},
};

/// The headers of the second way.
const TICKET: &str = "ssoticket";
const ORIGINATOR: &str = "originatorsid";

/// What taking bills needs.
pub(super) struct Bills {
    pub(super) outbox: Outbox,
    pub(super) sso: Client,
    /// Names the application that tickets are for.
    pub(super) upload: Followed<SendPort>,
    /// The applications that tickets are redeemed for at all.
    pub(super) applications: Vec<String>,
    pub(super) parties: Followed<Parties>,
    pub(super) agreement: Followed<Agreement>,
    pub(super) control: ListenerControl,
    /// Woken when there is something to send.
    pub(super) news: Arc<Notify>,
    pub(super) clock: Clock,
}

pub(super) fn router(bills: Arc<Bills>) -> Router {
    // The path is that of the receive location, which may change.
    Router::new().fallback(handle).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(bills)
}

async fn handle(
    State(bills): State<Arc<Bills>>,
    ConnectInfo(peer): ConnectInfo<HttpsPeer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = bills.control.location().path.clone();
    let rest = uri.path().strip_prefix(path.trim_end_matches('/'));
    let answer = match (method, rest) {
        (Method::POST, Some("" | "/")) => bills.hand_in(&peer, &headers, &body).await,
        (Method::GET, Some(rest)) => bills.tell(&peer, rest.trim_start_matches('/')).await,
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format_args!("hand bills in with POST {path}"),
        )),
    };
    let outcome = if answer.is_ok() { "answered" } else { "refused" };
    metrics::counter!("payment_host_bills_total", "outcome" => outcome).increment(1);
    match answer {
        Ok((code, status)) => json(code, &status),
        Err(refusal) => {
            tracing::warn!(
                peer = %peer.addr(), error = refusal.error, words = %refusal.message,
                "a bill is not accepted"
            );
            refusal.into_response()
        }
    }
}

type Answer = Result<(StatusCode, BillStatus), Refusal>;

impl Bills {
    async fn tell(&self, peer: &HttpsPeer, number: &str) -> Answer {
        let party = self.portal(peer)?;
        match self.outbox.find(&party, number).await.map_err(|error| Refusal::store(&error))? {
            Some(known) => Ok((StatusCode::OK, known.status)),
            None => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "BILL_UNKNOWN",
                "the portal handed in no bill of this number",
            )),
        }
    }

    async fn hand_in(&self, peer: &HttpsPeer, headers: &HeaderMap, body: &[u8]) -> Answer {
        let party = self.portal(peer)?;
        let bill =
            Bill::parse(body).map_err(|error| Refusal::bad_request("BILL_INVALID", error))?;
        let store = |error: sqlx::Error| Refusal::store(&error);
        let known = self.outbox.find(&party, &bill.number).await.map_err(store)?;
        if let Some(known) = known {
            return self.again(known, &bill, headers).await;
        }
        let context = self.sign_on(headers).await?;
        let accepted =
            self.outbox.accept(&party, &bill, &context, self.clock.now()).await.map_err(store)?;
        same(&accepted, &bill)?;
        self.news.notify_one();
        let (key, number) = (accepted.status.key, &bill.number);
        tracing::info!(party, %key, number, originator = accepted.originator, "a bill is accepted");
        Ok((StatusCode::ACCEPTED, accepted.status))
    }

    /// A bill that was handed in before. Costs no ticket unless the bill needs one.
    async fn again(&self, known: Known, bill: &Bill, headers: &HeaderMap) -> Answer {
        same(&known, bill)?;
        if !known.status.state.resumes() {
            return Ok((StatusCode::OK, known.status));
        }
        let context = self.sign_on(headers).await?;
        let originator = context.sign_on().map(SignOn::originator).unwrap_or_default();
        if !originator.eq_ignore_ascii_case(&known.originator) {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "ORIGINATOR_DIFFERS",
                "the bill was handed in for another user: only that user sets it going again",
            ));
        }
        if headers.contains_key(TICKET) {
            self.prove(&context).await?;
        }
        let key = known.status.key;
        let store = |error: sqlx::Error| Refusal::store(&error);
        self.outbox.resume(key, &context, self.clock.now()).await.map_err(store)?;
        self.news.notify_one();
        tracing::info!(%key, number = bill.number, "a bill is on its way again, with a new sign-on");
        let state = super::outbox::State::Waiting;
        let status = BillStatus { state, attempts: 0, problem: String::new(), ..known.status };
        Ok((StatusCode::ACCEPTED, status))
    }

    /// Whether a ticket that was handed over is that of the originator. A new bill may wait for that: it
    /// is nobody's yet. One that is known must not be set going by a ticket of somebody else.
    async fn prove(&self, context: &MessageContext) -> Result<(), Refusal> {
        match redeem(&self.sso, &self.upload.current(), &self.applications, context).await {
            Ok(_) => Ok(()),
            Err(error) if error.again() == Again::Later => {
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NO_TICKET", error))
            }
            Err(error) => Err(Refusal::new(StatusCode::FORBIDDEN, "SIGN_ON_INVALID", error)),
        }
    }

    /// The party behind the certificate, if it may hand in bills.
    fn portal(&self, peer: &HttpsPeer) -> Result<String, Refusal> {
        let party = peer
            .party(&self.parties.current())
            .map_err(|error| Refusal::new(StatusCode::FORBIDDEN, error.as_str(), &error))?;
        if !self.agreement.current().portals.contains(&party.name) {
            let message = format!("the party {} hands in no bills: see PortalParties", party.name);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "PARTY_NOT_ALLOWED", message));
        }
        Ok(party.name)
    }

    /// For whom the bill travels.
    async fn sign_on(&self, headers: &HeaderMap) -> Result<MessageContext, Refusal> {
        let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = of(header::AUTHORIZATION.as_str()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match (bearer, of(TICKET), of(ORIGINATOR)) {
            (Some(token), None, None) => self.issued(SecretText::new(token.to_owned())).await,
            (None, Some(ticket), Some(originator)) => {
                let sign_on = SignOn::new(SecretText::new(ticket.to_owned()), originator)
                    .map_err(|error| Refusal::bad_request("SIGN_ON_INVALID", error))?;
                let mut context = MessageContext::new();
                context.set_sign_on(Some(sign_on));
                Ok(context)
            }
            _ => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "SIGN_ON_MISSING",
                "say for whom the bill is: Authorization: Bearer with the token of the user, or \
                 SSOTicket and OriginatorSID together",
            )),
        }
    }

    /// A ticket for the user of the token, good for the gateway's application alone.
    async fn issued(&self, token: SecretText) -> Result<MessageContext, Refusal> {
        let port = self.upload.current();
        let issued = self
            .sso
            .tickets()
            .issue(port.application.as_deref(), Some(&token))
            .await
            .map_err(|error| not_issued(&error))?;
        tracing::info!(account = issued.account, id = issued.id, "a ticket is issued for a user");
        MessageContext::of(issued)
            .map_err(|error| Refusal::new(StatusCode::BAD_GATEWAY, "SIGN_ON_INVALID", error))
    }
}

/// A number stands for one bill.
fn same(known: &Known, bill: &Bill) -> Result<(), Refusal> {
    if known.bill == *bill {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::CONFLICT,
        "NUMBER_REUSED",
        "a bill of this number with another content was handed in before: give a new bill a new number",
    ))
}

/// No ticket, no bill. What the user can mend is told apart from what the house has to.
fn not_issued(error: &ClientError) -> Refusal {
    let reason = error.refusal().map(|refusal| refusal.reason.as_str()).unwrap_or_default();
    let message = match reason {
        "" => format!("the secret store is not reached: {error}"),
        reason => format!("{reason}: {error}"),
    };
    match reason {
        "USER_TOKEN_REFUSED" => {
            Refusal::new(StatusCode::UNAUTHORIZED, "USER_TOKEN_REFUSED", message)
        }
        "NOT_APPLICATION_USER" => {
            Refusal::new(StatusCode::FORBIDDEN, "NOT_APPLICATION_USER", message)
        }
        _ => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NO_TICKET", message),
    }
}
