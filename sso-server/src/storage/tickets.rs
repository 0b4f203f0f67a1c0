//! Tickets that were redeemed where each is redeemed once.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Storage, StorageError, Transaction,
    dialect::{Statement, Whole},
    group::script,
    rows::micros,
    whole::{bind_audit, insert_audit},
};
use crate::model::{ApplicationId, AuditRecord};

macro_rules! redeem {
    () => {
        "INSERT INTO redeemed_tickets (ticket_id, application_id, redeemed_at, expires_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (application_id, ticket_id) DO NOTHING"
    };
}
macro_rules! record {
    () => {
        insert_audit!("$5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17")
    };
}
const REDEEM: &str = redeem!();
const REDEEM_RECORDED: Whole = Whole {
    sqlite: script!(concat!(
        redeem!(),
        " RETURNING redeemed_at; ",
        record!(),
        "WHERE changes() > 0"
    )),
    postgres: concat!(
        "WITH first AS (",
        redeem!(),
        " RETURNING redeemed_at), recorded AS (",
        record!(),
        "FROM first) SELECT redeemed_at FROM first"
    ),
};
/// Servers that prune at the same time pass over each other's rows instead of waiting for them in
/// different orders.
const PRUNE: Statement = Statement {
    sqlite: "DELETE FROM redeemed_tickets WHERE (application_id, ticket_id) IN \
             (SELECT application_id, ticket_id FROM redeemed_tickets WHERE expires_at < $1 \
             ORDER BY expires_at LIMIT 1000)",
    postgres: "WITH old AS MATERIALIZED (SELECT application_id, ticket_id FROM redeemed_tickets \
               WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED) \
               DELETE FROM redeemed_tickets USING old \
               WHERE redeemed_tickets.ticket_id = old.ticket_id \
               AND redeemed_tickets.application_id = old.application_id",
};

pub(super) const STATEMENTS: &[Statement] = &[Statement::same(REDEEM), PRUNE];
pub(super) const WHOLES: &[Whole] = &[REDEEM_RECORDED];

impl Storage {
    /// Marks a ticket as redeemed by an application, and records that; `false`, and nothing is written,
    /// when it was before. Of any number at the same time exactly one gets `true`.
    ///
    /// # Errors
    /// `Gone` when the application was deleted meanwhile; `Overloaded`, `Unavailable`.
    pub async fn redeem_ticket(
        &self,
        ticket: Uuid,
        application: ApplicationId,
        (at, expires_at): (OffsetDateTime, OffsetDateTime),
        record: &AuditRecord,
    ) -> Result<bool, StorageError> {
        self.write_whole(&REDEEM_RECORDED, |text| {
            let query = sqlx::query(text)
                .bind(ticket.to_string())
                .bind(application.to_string())
                .bind(micros(at))
                .bind(micros(expires_at));
            bind_audit(query, record)
        })
        .await
    }
}

impl Transaction {
    /// Marks a ticket as redeemed by an application; `false` when it was before. The row count of one
    /// statement decides, so that of any number of redeems at the same time exactly one gets `true`.
    ///
    /// # Errors
    /// `Gone` when the application was deleted meanwhile.
    pub async fn redeem_ticket(
        &mut self,
        ticket: Uuid,
        application: ApplicationId,
        at: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<bool, StorageError> {
        let done = sqlx::query(REDEEM)
            .bind(ticket.to_string())
            .bind(application.to_string())
            .bind(micros(at))
            .bind(micros(expires_at))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets redeemed tickets that expired before `before`, oldest first, at most a thousand; how
    /// many.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn prune_redeemed_tickets(
        &mut self,
        before: OffsetDateTime,
    ) -> Result<u64, StorageError> {
        let statement = self.dialect().pick(&PRUNE);
        let done = sqlx::query(statement).bind(micros(before)).execute(self.connection()).await?;
        Ok(done.rows_affected())
    }
}
