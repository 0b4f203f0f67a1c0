//! What the host keeps: every bill it accepted, until the gateway has it and beyond, with the sign-on
//! it travels under; and what came back.
//!
//! The states of a bill:
//!
//! ```text
//!            ┌────────────┐   number   ┌──────────┐  notification  ┌──────┐
//! accepted → │ waiting    │ ─────────→ │ uploaded │ ─────────────→ │ paid │
//!            └────────────┘            └──────────┘                └──────┘
//!              │ ticket ended ↓ ↑ handed in again with a new sign-on
//!              │            needs sign-on
//!              └ attempts used up → given up (likewise)   · refused for good → rejected
//! ```
//!
//! A notification ends every state, as the gateway has the bill then.

use std::path::Path;

use sqlx::{Row as _, sqlite::SqliteRow};
use sso_client::integration::{ContextError, MessageContext};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    bill::{Bill, BillKey},
    notification::Notification,
    store::{Store, Writing},
    upload::Receipt,
};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS bill (
    bill_key TEXT PRIMARY KEY, party TEXT NOT NULL, number TEXT NOT NULL, content TEXT NOT NULL,
    originator TEXT NOT NULL, context TEXT,
    state TEXT NOT NULL CHECK (state IN
        ('waiting', 'needs sign-on', 'given up', 'rejected', 'uploaded', 'paid')),
    attempts INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL, problem TEXT NOT NULL DEFAULT '',
    merchant TEXT, payment_number TEXT UNIQUE, valid_until TEXT, accepted_at TEXT NOT NULL,
    UNIQUE (party, number)
) STRICT;
CREATE INDEX IF NOT EXISTS bill_due ON bill (due_ms) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS notification (
    party TEXT NOT NULL, id TEXT NOT NULL, bill_key TEXT NOT NULL REFERENCES bill (bill_key),
    taken_at TEXT NOT NULL, PRIMARY KEY (party, id)
) STRICT;
CREATE TABLE IF NOT EXISTS booking (
    bill_key TEXT PRIMARY KEY REFERENCES bill (bill_key), notification TEXT NOT NULL,
    amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, paid_at TEXT NOT NULL
) STRICT;
";

/// Where a bill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) enum State {
    /// On its way to the gateway.
    #[serde(rename = "waiting")]
    Waiting,
    /// Its ticket is worth nothing any more.
    #[serde(rename = "needs sign-on")]
    NeedsSignOn,
    /// The attempts that the send port allows are used up.
    #[serde(rename = "given up")]
    GivenUp,
    /// The gateway refuses it, and will every time.
    #[serde(rename = "rejected")]
    Rejected,
    /// The gateway has it.
    #[serde(rename = "uploaded")]
    Uploaded,
    /// The customer paid.
    #[serde(rename = "paid")]
    Paid,
}

impl State {
    const ALL: [Self; 6] = [
        Self::Waiting,
        Self::NeedsSignOn,
        Self::GivenUp,
        Self::Rejected,
        Self::Uploaded,
        Self::Paid,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::NeedsSignOn => "needs sign-on",
            Self::GivenUp => "given up",
            Self::Rejected => "rejected",
            Self::Uploaded => "uploaded",
            Self::Paid => "paid",
        }
    }

    /// Whether handing the bill in again, with a new sign-on, sets it going.
    pub(super) fn resumes(self) -> bool {
        matches!(self, Self::NeedsSignOn | Self::GivenUp)
    }
}

/// A bill as others may see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct BillStatus {
    pub(super) key: BillKey,
    pub(super) number: String,
    pub(super) state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid_until: Option<String>,
    pub(super) attempts: u32,
    /// What stands in the way; empty when nothing does.
    pub(super) problem: String,
}

/// A bill that was handed in before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) status: BillStatus,
    pub(super) bill: Bill,
    pub(super) originator: String,
}

/// A bill on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: BillKey,
    pub(super) bill: Bill,
    /// For whom it travels. An error: what stands there is none.
    pub(super) context: Result<MessageContext, ContextError>,
    /// How often it was tried in vain.
    pub(super) attempts: u32,
}

/// What a notification comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// The bill is paid by it.
    Now,
    /// The bill was paid before.
    Before,
    /// There is no such bill, or not yet.
    UnknownBill,
    /// It contradicts what is known of the bill.
    Contradiction(&'static str),
}

/// The outbox, in the host's file.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    store: Store,
}

fn damaged(what: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(what.to_string().into())
}

fn text(time: OffsetDateTime) -> String {
    // Every time of this millennium can be written.
    time.format(&Rfc3339).unwrap_or_default()
}

fn millis(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// For whom a context travels; nobody where there is no sign-on.
fn originator(context: &MessageContext) -> &str {
    context.sign_on().map(|it| it.originator()).unwrap_or_default()
}

impl Outbox {
    pub(super) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        Ok(Self { store: Store::open(path, SCHEMA).await? })
    }

    pub(super) async fn close(&self) {
        self.store.close().await;
    }

    /// What is known of the bill that the party hands in under this number.
    pub(super) async fn find(
        &self,
        party: &str,
        number: &str,
    ) -> Result<Option<Known>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM bill WHERE party = $1 AND number = $2")
            .bind(party)
            .bind(number)
            .fetch_optional(self.store.readers())
            .await?;
        row.as_ref().map(known).transpose()
    }

    /// Writes a bill down, with the key that it is uploaded under at every attempt. Nothing was sent
    /// before; once this returns, it will be. Where somebody else was faster with the same number, that
    /// bill stands.
    pub(super) async fn accept(
        &self,
        party: &str,
        bill: &Bill,
        context: &MessageContext,
        now: OffsetDateTime,
    ) -> Result<Known, sqlx::Error> {
        let mut writing = self.store.write().await?;
        // Expose: into the outbox, a file of the host's own.
        let sealed = context.to_text();
        sqlx::query(
            "INSERT INTO bill (bill_key, party, number, content, originator, context, state, due_ms,
                 accepted_at) VALUES ($1, $2, $3, $4, $5, $6, 'waiting', $7, $8)
             ON CONFLICT (party, number) DO NOTHING",
        )
        .bind(BillKey::generate().to_string())
        .bind(party)
        .bind(&bill.number)
        .bind(bill.to_json())
        .bind(originator(context))
        .bind(sealed.expose())
        .bind(millis(now))
        .bind(text(now))
        .execute(&mut *writing)
        .await?;
        let row = sqlx::query("SELECT * FROM bill WHERE party = $1 AND number = $2")
            .bind(party)
            .bind(&bill.number)
            .fetch_one(&mut *writing)
            .await?;
        writing.commit().await?;
        known(&row)
    }

    /// Sets a bill going again, with a new sign-on. Whether it was status still.
    pub(super) async fn resume(
        &self,
        key: BillKey,
        context: &MessageContext,
        now: OffsetDateTime,
    ) -> Result<bool, sqlx::Error> {
        let mut writing = self.store.write().await?;
        // Expose: into the outbox, a file of the host's own.
        let sealed = context.to_text();
        let changed = sqlx::query(
            "UPDATE bill SET state = 'waiting', context = $1, attempts = 0, due_ms = $2, problem = ''
             WHERE bill_key = $3 AND state IN ('needs sign-on', 'given up')",
        )
        .bind(sealed.expose())
        .bind(millis(now))
        .bind(key.to_string())
        .execute(&mut *writing)
        .await?;
        writing.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    /// Bills on their way whose time has come, the oldest first.
    pub(super) async fn due(
        &self,
        now: OffsetDateTime,
        most: u32,
    ) -> Result<Vec<Waiting>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT bill_key, content, context, attempts FROM bill
             WHERE state = 'waiting' AND due_ms <= $1 ORDER BY due_ms LIMIT $2",
        )
        .bind(millis(now))
        .bind(most)
        .fetch_all(self.store.readers())
        .await?;
        rows.iter().map(waiting).collect()
    }

    /// Every bill on its way is due now: something was repaired.
    pub(super) async fn hurry(&self, now: OffsetDateTime) -> Result<(), sqlx::Error> {
        let mut writing = self.store.write().await?;
        sqlx::query("UPDATE bill SET due_ms = $1 WHERE state = 'waiting' AND due_ms > $1")
            .bind(millis(now))
            .execute(&mut *writing)
            .await?;
        writing.commit().await
    }

    /// The gateway has it. The ticket is not needed any more, and is wiped. `false`: nothing was
    /// changed, as the bill has another number already, or another bill has this one.
    pub(super) async fn uploaded(
        &self,
        key: BillKey,
        merchant: &str,
        receipt: &Receipt,
    ) -> Result<bool, sqlx::Error> {
        let mut writing = self.store.write().await?;
        let changed = sqlx::query(
            "UPDATE bill SET payment_number = $1, valid_until = $2, merchant = $3, context = NULL,
                 problem = '', state = CASE state WHEN 'paid' THEN 'paid' ELSE 'uploaded' END
             WHERE bill_key = $4 AND (payment_number IS NULL OR payment_number = $1)",
        )
        .bind(receipt.payment_number.as_str())
        .bind(&receipt.valid_until)
        .bind(merchant)
        .bind(key.to_string())
        .execute(&mut *writing)
        .await;
        match changed {
            Ok(changed) => {
                writing.commit().await?;
                Ok(changed.rows_affected() > 0)
            }
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One attempt in vain; another one follows after the pause.
    pub(super) async fn postpone(
        &self,
        key: BillKey,
        due: OffsetDateTime,
        problem: &str,
    ) -> Result<(), sqlx::Error> {
        let mut writing = self.store.write().await?;
        sqlx::query(
            "UPDATE bill SET attempts = attempts + 1, due_ms = $1, problem = $2
             WHERE bill_key = $3 AND state = 'waiting'",
        )
        .bind(millis(due))
        .bind(problem)
        .bind(key.to_string())
        .execute(&mut *writing)
        .await?;
        writing.commit().await
    }

    /// The bill stands still in this state. The sign-on goes: it is of no more use.
    pub(super) async fn set_aside(
        &self,
        key: BillKey,
        state: State,
        problem: &str,
    ) -> Result<(), sqlx::Error> {
        let mut writing = self.store.write().await?;
        sqlx::query(
            "UPDATE bill SET state = $1, attempts = attempts + 1, context = NULL, problem = $2
             WHERE bill_key = $3 AND state = 'waiting'",
        )
        .bind(state.as_str())
        .bind(problem)
        .bind(key.to_string())
        .execute(&mut *writing)
        .await?;
        writing.commit().await
    }

    /// Books a payment once, whatever is repeated: the id of the notification, the booking and the
    /// state of the bill change together or not at all.
    pub(super) async fn paid(
        &self,
        party: &str,
        notification: &Notification,
        now: OffsetDateTime,
    ) -> Result<Noted, sqlx::Error> {
        let mut writing = self.store.write().await?;
        let row = sqlx::query("SELECT * FROM bill WHERE bill_key = $1")
            .bind(notification.bill.to_string())
            .fetch_optional(&mut *writing)
            .await?;
        let Some(row) = row else { return Ok(Noted::UnknownBill) };
        let known = known(&row)?;
        let merchant: Option<String> = row.try_get("merchant")?;
        if let Some(what) = contradiction(&known, merchant.as_deref(), notification) {
            return Ok(Noted::Contradiction(what));
        }
        if is_of_another(&mut writing, notification).await? {
            return Ok(Noted::Contradiction("the payment number is that of another bill"));
        }
        note(&mut writing, party, notification, now).await?;
        let before = known.status.state == State::Paid;
        if !before {
            book(&mut writing, notification).await?;
        }
        writing.commit().await?;
        Ok(if before { Noted::Before } else { Noted::Now })
    }

    /// How many bills are in each state.
    pub(super) async fn counts(&self) -> Result<Vec<(&'static str, i64)>, sqlx::Error> {
        let rows = sqlx::query("SELECT state, COUNT(*) AS bills FROM bill GROUP BY state")
            .fetch_all(self.store.readers())
            .await?;
        let counted = rows
            .iter()
            .map(|row| Ok((row.try_get::<String, _>("state")?, row.try_get::<i64, _>("bills")?)))
            .collect::<Result<Vec<_>, sqlx::Error>>()?;
        let of = |state: State| {
            counted.iter().find(|(name, _)| name == state.as_str()).map_or(0, |(_, bills)| *bills)
        };
        Ok(State::ALL.into_iter().map(|state| (state.as_str(), of(state))).collect())
    }

    /// What stands in the way of bills, once each, with how many it holds up.
    pub(super) async fn problems(&self) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT state || ', ' || COUNT(*) || ' bills: ' || problem FROM bill
             WHERE problem <> '' GROUP BY state, problem ORDER BY state, problem LIMIT 10",
        )
        .fetch_all(self.store.readers())
        .await
    }
}

async fn is_of_another(
    writing: &mut Writing,
    notification: &Notification,
) -> Result<bool, sqlx::Error> {
    let other = sqlx::query("SELECT 1 FROM bill WHERE payment_number = $1 AND bill_key <> $2")
        .bind(notification.payment_number.as_str())
        .bind(notification.bill.to_string())
        .fetch_optional(&mut **writing)
        .await?;
    Ok(other.is_some())
}

async fn note(
    writing: &mut Writing,
    party: &str,
    notification: &Notification,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO notification (party, id, bill_key, taken_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (party, id) DO NOTHING",
    )
    .bind(party)
    .bind(notification.id.to_string())
    .bind(notification.bill.to_string())
    .bind(text(now))
    .execute(&mut **writing)
    .await?;
    Ok(())
}

async fn book(writing: &mut Writing, notification: &Notification) -> Result<(), sqlx::Error> {
    let amount = i64::try_from(notification.amount_minor).map_err(damaged)?;
    // No "on conflict": a second booking of a bill fails, and nothing of this happens.
    sqlx::query(
        "INSERT INTO booking (bill_key, notification, amount_minor, currency, paid_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(notification.bill.to_string())
    .bind(notification.id.to_string())
    .bind(amount)
    .bind(&notification.currency)
    .bind(&notification.paid_at)
    .execute(&mut **writing)
    .await?;
    sqlx::query(
        "UPDATE bill SET state = 'paid', payment_number = $1, context = NULL, problem = ''
         WHERE bill_key = $2",
    )
    .bind(notification.payment_number.as_str())
    .bind(notification.bill.to_string())
    .execute(&mut **writing)
    .await?;
    Ok(())
}

/// What in the notification is not as the bill has it.
fn contradiction(
    known: &Known,
    merchant: Option<&str>,
    notification: &Notification,
) -> Option<&'static str> {
    let number = known.status.payment_number.as_deref();
    if number.is_some_and(|number| number != notification.payment_number.as_str()) {
        return Some("the payment number is another one than the bill got");
    }
    if merchant.is_some_and(|merchant| merchant != notification.aud) {
        return Some("the merchant is another one than the bill was uploaded for");
    }
    let bill = &known.bill;
    if (bill.amount_minor, &bill.currency) != (notification.amount_minor, &notification.currency) {
        return Some("the amount is another one than that of the bill");
    }
    None
}

fn known(row: &SqliteRow) -> Result<Known, sqlx::Error> {
    let state: &str = row.try_get("state")?;
    let state = State::ALL.into_iter().find(|it| it.as_str() == state);
    Ok(Known {
        status: BillStatus {
            key: row.try_get::<&str, _>("bill_key")?.parse().map_err(damaged)?,
            number: row.try_get("number")?,
            state: state.ok_or_else(|| damaged("state"))?,
            payment_number: row.try_get("payment_number")?,
            valid_until: row.try_get("valid_until")?,
            attempts: row.try_get("attempts")?,
            problem: row.try_get("problem")?,
        },
        bill: serde_json::from_str(row.try_get("content")?).map_err(damaged)?,
        originator: row.try_get("originator")?,
    })
}

fn waiting(row: &SqliteRow) -> Result<Waiting, sqlx::Error> {
    let context: Option<&str> = row.try_get("context")?;
    Ok(Waiting {
        key: row.try_get::<&str, _>("bill_key")?.parse().map_err(damaged)?,
        bill: serde_json::from_str(row.try_get("content")?).map_err(damaged)?,
        context: context.map_or_else(|| Ok(MessageContext::new()), MessageContext::from_text),
        attempts: row.try_get("attempts")?,
    })
}

#[cfg(test)]
mod tests;
