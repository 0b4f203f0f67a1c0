//! The bank's side: says what was paid. It stands for what a real gateway has its own protocols for,
//! so it is plain HTTP on this machine alone.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing,
};
use serde::Serialize;
use sso_core::clock::Clock;
use tokio::sync::Notify;
use uuid::Uuid;

use super::ledger::{Ledger, Paid, ToNotify, text};
use crate::{
    bill::PaymentNumber,
    notification::{Notification, SigningKey},
    web::{Refusal, json},
};

/// What payments need.
pub(super) struct Bank {
    pub(super) ledger: Ledger,
    pub(super) issuer: String,
    pub(super) key: SigningKey,
    /// Woken when there is something to tell.
    pub(super) news: Arc<Notify>,
    pub(super) clock: Clock,
}

#[derive(Serialize)]
struct Answer {
    paid: &'static str,
}

pub(super) fn router(bank: Arc<Bank>) -> Router {
    Router::new()
        .route("/payments/{number}", routing::post(pay))
        .route("/payments/{number}/notification", routing::post(repeat))
        .with_state(bank)
}

/// `POST /payments/NUMBER`: a customer paid.
async fn pay(State(bank): State<Arc<Bank>>, Path(number): Path<String>) -> Response {
    bank.pay(&number).await.unwrap_or_else(Refusal::into_response)
}

/// `POST /payments/NUMBER/notification`: posts the notification once more, as happens when an answer is lost.
async fn repeat(State(bank): State<Arc<Bank>>, Path(number): Path<String>) -> Response {
    bank.repeat(&number).await.unwrap_or_else(Refusal::into_response)
}

impl Bank {
    async fn pay(&self, number: &str) -> Result<Response, Refusal> {
        let number = parse(number)?;
        let now = self.clock.now();
        let paid = self
            .ledger
            .pay(&number, now, |told, id| self.signed(told, id, now))
            .await
            .map_err(|error| Refusal::store(&error))?;
        match paid {
            Paid::Now(told) => {
                tracing::info!(merchant = told.merchant, key = %told.key, %number, "a bill is paid");
                self.news.notify_one();
                Ok(json(StatusCode::CREATED, &Answer { paid: "now" }))
            }
            Paid::Before => Ok(json(StatusCode::OK, &Answer { paid: "before" })),
            Paid::UnknownNumber => Err(unknown(&number)),
            Paid::Expired(end) => Err(Refusal::new(
                StatusCode::GONE,
                "NUMBER_EXPIRED",
                format_args!("{number} was good until {}", text(end)),
            )),
        }
    }

    async fn repeat(&self, number: &str) -> Result<Response, Refusal> {
        let number = parse(number)?;
        let repeated = self
            .ledger
            .repeat(&number, self.clock.now())
            .await
            .map_err(|error| Refusal::store(&error))?;
        if !repeated {
            return Err(unknown(&number));
        }
        self.news.notify_one();
        Ok(json(StatusCode::ACCEPTED, &Answer { paid: "before" }))
    }

    fn signed(
        &self,
        told: &ToNotify,
        id: Uuid,
        now: time::OffsetDateTime,
    ) -> Result<String, sqlx::Error> {
        let notification = Notification {
            iss: self.issuer.clone(),
            aud: told.merchant.clone(),
            id,
            iat: now.unix_timestamp(),
            bill: told.key,
            payment_number: told.payment_number.clone(),
            amount_minor: told.bill.amount_minor,
            currency: told.bill.currency.clone(),
            paid_at: text(now),
        };
        self.key.sign(&notification).map_err(|error| sqlx::Error::Encode(error.into()))
    }
}

fn parse(number: &str) -> Result<PaymentNumber, Refusal> {
    number.parse().map_err(|error| Refusal::bad_request("NUMBER_INVALID", error))
}

fn unknown(number: &PaymentNumber) -> Refusal {
    let message = format_args!("{number} is the number of no bill, or nothing was paid under it");
    Refusal::new(StatusCode::NOT_FOUND, "NUMBER_UNKNOWN", message)
}
