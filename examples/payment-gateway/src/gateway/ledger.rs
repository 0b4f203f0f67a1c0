//! What the gateway keeps: merchants, bills with their payment numbers, and notifications that were
//! not acknowledged yet.

use std::path::Path;

use sqlx::{Row as _, sqlite::SqliteRow};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::merchants::{Kept, Merchant};
use crate::{
    bill::{Bill, BillKey, PaymentNumber},
    store::{Store, Writing},
    upload::{Receipt, Scheme},
};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS merchant (
    name TEXT PRIMARY KEY, client TEXT NOT NULL, scheme TEXT NOT NULL, notify_url TEXT NOT NULL,
    salt BLOB NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS bill (
    merchant TEXT NOT NULL REFERENCES merchant (name), bill_key TEXT NOT NULL, content TEXT NOT NULL,
    payment_number TEXT NOT NULL UNIQUE, valid_until TEXT NOT NULL, paid_at TEXT,
    PRIMARY KEY (merchant, bill_key)
) STRICT;
CREATE TABLE IF NOT EXISTS notification (
    id TEXT PRIMARY KEY, merchant TEXT NOT NULL, bill_key TEXT NOT NULL, content TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL, acknowledged_at TEXT,
    problem TEXT NOT NULL DEFAULT '',
    UNIQUE (merchant, bill_key),
    FOREIGN KEY (merchant, bill_key) REFERENCES bill (merchant, bill_key)
) STRICT;
CREATE INDEX IF NOT EXISTS notification_due ON notification (due_ms) WHERE acknowledged_at IS NULL;
";

/// How often a fresh payment number is drawn when the one before was taken.
const DRAWS: usize = 8;

/// The gateway's file.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    store: Store,
}

/// What uploading a bill comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// It is here now.
    New(Receipt),
    /// It was here before, and this is what it got then.
    Known(Receipt),
    /// The key names another bill.
    KeyReused,
}

/// What paying comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Paid {
    Now(ToNotify),
    Before,
    UnknownNumber,
    Expired(OffsetDateTime),
}

/// What a notification is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToNotify {
    pub(super) merchant: String,
    pub(super) key: BillKey,
    pub(super) bill: Bill,
    pub(super) payment_number: PaymentNumber,
}

/// A signed notification on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) id: Uuid,
    pub(super) notify_url: String,
    pub(super) content: String,
    /// How often it was posted in vain.
    pub(super) attempts: u32,
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    bills: i64,
    paid: i64,
    unacknowledged: i64,
}

/// A row that does not hold what was put there.
fn damaged(what: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(what.to_string().into())
}

fn time(text: &str) -> Result<OffsetDateTime, sqlx::Error> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(damaged)
}

pub(super) fn text(time: OffsetDateTime) -> String {
    // Every time of this millennium can be written.
    time.format(&Rfc3339).unwrap_or_default()
}

fn millis(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

impl Ledger {
    pub(super) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        Ok(Self { store: Store::open(path, SCHEMA).await? })
    }

    pub(super) async fn close(&self) {
        self.store.close().await;
    }

    /// Adds a merchant, or replaces all that is known of it but its bills.
    pub(super) async fn put_merchant(
        &self,
        merchant: &Merchant,
        kept: &Kept,
    ) -> Result<(), sqlx::Error> {
        let mut writing = self.store.write().await?;
        sqlx::query(
            "INSERT INTO merchant (name, client, scheme, notify_url, salt, hash)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (name) DO UPDATE SET client = $2, scheme = $3, notify_url = $4, salt = $5,
             hash = $6",
        )
        .bind(&merchant.name)
        .bind(&merchant.client)
        .bind(merchant.scheme.as_str())
        .bind(&merchant.notify_url)
        .bind(&kept.salt)
        .bind(&kept.hash)
        .execute(&mut *writing)
        .await?;
        writing.commit().await
    }

    /// Every merchant that a system may speak for by one of these names of its certificate.
    pub(super) async fn merchants(
        &self,
        client: &[String],
    ) -> Result<Vec<(Merchant, Kept)>, sqlx::Error> {
        let rows = sqlx::query("SELECT name, client, scheme, notify_url, salt, hash FROM merchant")
            .fetch_all(self.store.readers())
            .await?;
        let merchants = rows.iter().map(merchant).collect::<Result<Vec<_>, _>>()?;
        Ok(merchants.into_iter().filter(|(it, _)| client.contains(&it.client)).collect())
    }

    /// Takes a bill once: the same key brings the same payment number, however often it comes.
    pub(super) async fn upload(
        &self,
        merchant: &str,
        key: BillKey,
        bill: &Bill,
        valid_until: OffsetDateTime,
    ) -> Result<Uploaded, sqlx::Error> {
        let mut writing = self.store.write().await?;
        let known = sqlx::query(
            "SELECT content, payment_number, valid_until FROM bill
             WHERE merchant = $1 AND bill_key = $2",
        )
        .bind(merchant)
        .bind(key.to_string())
        .fetch_optional(&mut *writing)
        .await?;
        if let Some(row) = known {
            let content: String = row.try_get("content")?;
            if content != bill.to_json() {
                return Ok(Uploaded::KeyReused);
            }
            return Ok(Uploaded::Known(receipt(&row)?));
        }
        let payment_number = free_number(&mut writing).await?;
        // To the second, so that a repetition gives the same text.
        let valid_until = text(valid_until.replace_nanosecond(0).map_err(damaged)?);
        sqlx::query(
            "INSERT INTO bill (merchant, bill_key, content, payment_number, valid_until)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(merchant)
        .bind(key.to_string())
        .bind(bill.to_json())
        .bind(payment_number.as_str())
        .bind(&valid_until)
        .execute(&mut *writing)
        .await?;
        writing.commit().await?;
        Ok(Uploaded::New(Receipt { payment_number, valid_until }))
    }

    /// Books a payment once, and in the same transaction what is to be told about it.
    pub(super) async fn pay(
        &self,
        number: &PaymentNumber,
        now: OffsetDateTime,
        notification: impl FnOnce(&ToNotify, Uuid) -> Result<String, sqlx::Error> + Send,
    ) -> Result<Paid, sqlx::Error> {
        let mut writing = self.store.write().await?;
        let row = sqlx::query(
            "SELECT merchant, bill_key, content, valid_until, paid_at FROM bill
             WHERE payment_number = $1",
        )
        .bind(number.as_str())
        .fetch_optional(&mut *writing)
        .await?;
        let Some(row) = row else { return Ok(Paid::UnknownNumber) };
        if row.try_get::<Option<String>, _>("paid_at")?.is_some() {
            return Ok(Paid::Before);
        }
        let valid_until = time(row.try_get("valid_until")?)?;
        if valid_until < now {
            return Ok(Paid::Expired(valid_until));
        }
        let told = ToNotify {
            merchant: row.try_get("merchant")?,
            key: row.try_get::<&str, _>("bill_key")?.parse().map_err(damaged)?,
            bill: serde_json::from_str(row.try_get("content")?).map_err(damaged)?,
            payment_number: number.clone(),
        };
        let id = Uuid::new_v4();
        let content = notification(&told, id)?;
        sqlx::query("UPDATE bill SET paid_at = $1 WHERE payment_number = $2")
            .bind(text(now))
            .bind(number.as_str())
            .execute(&mut *writing)
            .await?;
        sqlx::query(
            "INSERT INTO notification (id, merchant, bill_key, content, due_ms)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id.to_string())
        .bind(&told.merchant)
        .bind(told.key.to_string())
        .bind(content)
        .bind(millis(now))
        .execute(&mut *writing)
        .await?;
        writing.commit().await?;
        Ok(Paid::Now(told))
    }

    /// Notifications that nobody acknowledged and whose time has come, the oldest first.
    pub(super) async fn due(
        &self,
        now: OffsetDateTime,
        most: u32,
    ) -> Result<Vec<Outgoing>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT id, merchant.notify_url AS notify_url, content, attempts FROM notification
             JOIN merchant ON merchant.name = notification.merchant
             WHERE acknowledged_at IS NULL AND due_ms <= $1 ORDER BY due_ms LIMIT $2",
        )
        .bind(millis(now))
        .bind(most)
        .fetch_all(self.store.readers())
        .await?;
        rows.iter().map(outgoing).collect()
    }

    /// Somebody took it.
    pub(super) async fn acknowledged(
        &self,
        id: Uuid,
        now: OffsetDateTime,
    ) -> Result<(), sqlx::Error> {
        let mut writing = self.store.write().await?;
        sqlx::query("UPDATE notification SET acknowledged_at = $1, problem = '' WHERE id = $2")
            .bind(text(now))
            .bind(id.to_string())
            .execute(&mut *writing)
            .await?;
        writing.commit().await
    }

    /// Nobody took it; it is posted again after the pause.
    pub(super) async fn postpone(
        &self,
        outgoing: &Outgoing,
        now: OffsetDateTime,
        pause: std::time::Duration,
        problem: &str,
    ) -> Result<(), sqlx::Error> {
        let pause = Duration::try_from(pause).map_err(damaged)?;
        let mut writing = self.store.write().await?;
        sqlx::query(
            "UPDATE notification SET attempts = attempts + 1, due_ms = $1, problem = $2
             WHERE id = $3",
        )
        .bind(millis(now.saturating_add(pause)))
        .bind(problem)
        .bind(outgoing.id.to_string())
        .execute(&mut *writing)
        .await?;
        writing.commit().await
    }

    /// Makes an acknowledged notification due again, as a gateway does that lost the answer.
    /// Whether there is one.
    pub(super) async fn repeat(
        &self,
        number: &PaymentNumber,
        now: OffsetDateTime,
    ) -> Result<bool, sqlx::Error> {
        let mut writing = self.store.write().await?;
        let changed = sqlx::query(
            "UPDATE notification SET acknowledged_at = NULL, due_ms = $1
             WHERE (merchant, bill_key) IN
                 (SELECT merchant, bill_key FROM bill WHERE payment_number = $2)",
        )
        .bind(millis(now))
        .bind(number.as_str())
        .execute(&mut *writing)
        .await?;
        writing.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    pub(super) async fn counts(&self) -> Result<Counts, sqlx::Error> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM bill) AS bills,
                 (SELECT COUNT(*) FROM bill WHERE paid_at IS NOT NULL) AS paid,
                 (SELECT COUNT(*) FROM notification WHERE acknowledged_at IS NULL) AS waiting",
        )
        .fetch_one(self.store.readers())
        .await?;
        Ok(Counts {
            bills: row.try_get("bills")?,
            paid: row.try_get("paid")?,
            unacknowledged: row.try_get("waiting")?,
        })
    }

    /// What stands in the way of the notifications that were posted in vain, once each.
    pub(super) async fn problems(&self) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT DISTINCT problem FROM notification
             WHERE acknowledged_at IS NULL AND problem <> '' ORDER BY problem LIMIT 10",
        )
        .fetch_all(self.store.readers())
        .await
    }
}

async fn free_number(writing: &mut Writing) -> Result<PaymentNumber, sqlx::Error> {
    for _ in 0..DRAWS {
        let number = PaymentNumber::generate().map_err(sqlx::Error::Io)?;
        let taken = sqlx::query("SELECT 1 FROM bill WHERE payment_number = $1")
            .bind(number.as_str())
            .fetch_optional(&mut **writing)
            .await?;
        if taken.is_none() {
            return Ok(number);
        }
    }
    Err(damaged("no payment number is free"))
}

fn receipt(row: &SqliteRow) -> Result<Receipt, sqlx::Error> {
    Ok(Receipt {
        payment_number: row.try_get::<&str, _>("payment_number")?.parse().map_err(damaged)?,
        valid_until: row.try_get("valid_until")?,
    })
}

fn merchant(row: &SqliteRow) -> Result<(Merchant, Kept), sqlx::Error> {
    let scheme: &str = row.try_get("scheme")?;
    let merchant = Merchant {
        name: row.try_get("name")?,
        client: row.try_get("client")?,
        scheme: Scheme::parse(scheme).ok_or_else(|| damaged("scheme"))?,
        notify_url: row.try_get("notify_url")?,
    };
    Ok((merchant, Kept { salt: row.try_get("salt")?, hash: row.try_get("hash")? }))
}

fn outgoing(row: &SqliteRow) -> Result<Outgoing, sqlx::Error> {
    Ok(Outgoing {
        id: row.try_get::<&str, _>("id")?.parse().map_err(damaged)?,
        notify_url: row.try_get("notify_url")?,
        content: row.try_get("content")?,
        attempts: row.try_get("attempts")?,
    })
}

#[cfg(test)]
mod tests;
