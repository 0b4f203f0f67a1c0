//! `POST /v1/bills`: a merchant's system hands in a bill and gets the number it is paid under.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing,
};
use sso_core::{clock::Clock, peer::PeerCertificate, tls::TlsReloader};
use time::Duration;
use tokio::sync::Semaphore;

use super::{
    ledger::{Ledger, Uploaded},
    listener::Visitor,
    merchants::{Gate, Merchant, Shown},
};
use crate::{
    bill::{Bill, BillKey},
    upload::{KEY_HEADER, PATH, Receipt},
    web::{BODY_MAX, Refusal, json},
};

/// What is said of a certificate that was good when the connection was opened.
const CERTIFICATE_REFUSED: &str = "CERTIFICATE_REFUSED";
/// How many credentials are looked at at once; each takes 19 MiB for a moment.
pub(super) const VERIFIED_AT_ONCE: usize = 4;

/// How long a request waits for its turn.
const VERIFIED_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// What uploads need.
pub(super) struct Uploads {
    pub(super) ledger: Ledger,
    pub(super) gate: Arc<Gate>,
    /// Places for those whose credentials are looked at.
    pub(super) verifying: Arc<Semaphore>,
    pub(super) tls: Arc<TlsReloader>,
    pub(super) valid: Duration,
    pub(super) clock: Clock,
}

pub(super) fn router(uploads: Arc<Uploads>) -> Router {
    Router::new()
        .route(PATH, routing::post(upload))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(uploads)
}

async fn upload(
    State(uploads): State<Arc<Uploads>>,
    ConnectInfo(visitor): ConnectInfo<Visitor>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match uploads.take(&visitor, &headers, &body).await {
        Ok((status, receipt)) => {
            metrics::counter!("payment_gateway_uploads_total", "outcome" => "taken").increment(1);
            json(status, &receipt)
        }
        Err(refusal) => {
            metrics::counter!("payment_gateway_uploads_total", "outcome" => "refused").increment(1);
            tracing::warn!(error = refusal.error, words = %refusal.message, "an upload is refused");
            let parting = refusal.error == CERTIFICATE_REFUSED;
            let mut answer = refusal.into_response();
            if parting {
                // What comes next meets with the handshake, which says it better.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    }
}

impl Uploads {
    async fn take(
        &self,
        visitor: &Visitor,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(StatusCode, Receipt), Refusal> {
        let merchant = self.merchant(visitor, headers).await?;
        let key: BillKey = headers
            .get(KEY_HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| {
                Refusal::bad_request("KEY_MISSING", "send a UUID in the header Idempotency-Key")
            })?;
        let bill =
            Bill::parse(body).map_err(|error| Refusal::bad_request("BILL_INVALID", error))?;
        let valid_until = self.clock.now().saturating_add(self.valid);
        let uploaded = self
            .ledger
            .upload(&merchant.name, key, &bill, valid_until)
            .await
            .map_err(|error| Refusal::store(&error))?;
        match uploaded {
            Uploaded::New(receipt) => {
                let number = &receipt.payment_number;
                tracing::info!(merchant = merchant.name, %key, %number, "a bill is taken");
                Ok((StatusCode::CREATED, receipt))
            }
            Uploaded::Known(receipt) => {
                tracing::info!(merchant = merchant.name, %key, "a bill came again");
                Ok((StatusCode::OK, receipt))
            }
            Uploaded::KeyReused => Err(Refusal::new(
                StatusCode::CONFLICT,
                "KEY_REUSED",
                "the key was used for a bill with another content: choose a new key for a new bill",
            )),
        }
    }

    /// Who uploads: the certificate says which system it is, the credentials say for which merchant.
    async fn merchant(&self, visitor: &Visitor, headers: &HeaderMap) -> Result<Merchant, Refusal> {
        let certificate = self.certificate(visitor)?;
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(Shown::parse)
            .ok_or_else(|| {
                Refusal::new(
                    StatusCode::UNAUTHORIZED,
                    "CREDENTIALS_MISSING",
                    "send the credentials of the merchant: Authorization: Basic or Bearer",
                )
            })?;
        let mut names = certificate.dns_names.clone();
        names.extend(certificate.subject_common_name.clone());
        let mut merchants =
            self.ledger.merchants(&names).await.map_err(|error| Refusal::store(&error))?;
        merchants.retain(|(it, _)| shown.user().is_none_or(|user| user == it.name));
        let known = |gate: &Gate| {
            let found = merchants.iter().find(|(it, kept)| gate.remembers(it, kept, &shown));
            found.map(|(merchant, _)| merchant.clone())
        };
        if let Some(merchant) = known(&self.gate) {
            return Ok(merchant);
        }
        // Argon2id takes its time and its memory, on purpose: not of everybody at once.
        let place = Arc::clone(&self.verifying).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(VERIFIED_WITHIN, place).await else {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOO_MANY_LOGONS",
                "too many credentials are looked at at this moment: try again later",
            ));
        };
        // Of many requests at once with the same credentials one is looked at.
        if let Some(merchant) = known(&self.gate) {
            return Ok(merchant);
        }
        let gate = Arc::clone(&self.gate);
        let found = tokio::task::spawn_blocking(move || {
            let _place = place;
            merchants.into_iter().find(|(merchant, kept)| gate.admits(merchant, kept, &shown))
        });
        match found.await {
            Ok(Some((merchant, _))) => Ok(merchant),
            Ok(None) | Err(_) => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "CREDENTIALS_WRONG",
                format_args!(
                    "no merchant that {} may speak for has these credentials",
                    names.join(", ")
                ),
            )),
        }
    }

    /// The certificate of the connection, as long as it is good: it may have been revoked since.
    fn certificate<'v>(&self, visitor: &'v Visitor) -> Result<&'v PeerCertificate, Refusal> {
        let refused =
            |message: String| Refusal::new(StatusCode::FORBIDDEN, CERTIFICATE_REFUSED, message);
        let Visitor(peer) = visitor;
        peer.still_trusted(&self.tls)
            .map_err(|reason| refused(format!("the certificate is no longer good: {reason}")))?;
        peer.certificate
            .as_deref()
            .ok_or_else(|| refused("NO_CLIENT_CERTIFICATE: show the certificate".to_owned()))
    }
}
