//! Tickets that were redeemed where each is redeemed once.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Storage, StorageError, Transaction,
    dialect::{Statement, Whole},
    group::script,
    rows::micros,
};
use crate::model::ApplicationId;

macro_rules! redeem {
    () => {
        "INSERT INTO redeemed_tickets (ticket_id, application_id, redeemed_at, expires_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (application_id, ticket_id) DO NOTHING \
         RETURNING redeemed_at"
    };
}
const REDEEM: Whole = Whole { sqlite: script!(redeem!()), postgres: redeem!() };
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

pub(super) const STATEMENTS: &[Statement] = &[PRUNE];
pub(super) const WHOLES: &[Whole] = &[REDEEM];

impl Storage {
    /// Marks a ticket as redeemed by an application, durably; `false`, and nothing is written, when it was
    /// before. Of any number at the same time exactly one gets `true`.
    ///
    /// # Errors
    /// `Gone` when the application was deleted meanwhile; `Overloaded`, `Unavailable`.
    pub async fn redeem_ticket(
        &self,
        ticket: Uuid,
        application: ApplicationId,
        (at, expires_at): (OffsetDateTime, OffsetDateTime),
    ) -> Result<bool, StorageError> {
        let redeemed = self.write_whole(&REDEEM, |text| {
            sqlx::query(text)
                .bind(ticket.to_string())
                .bind(application.to_string())
                .bind(micros(at))
                .bind(micros(expires_at))
        });
        Ok(redeemed.await?.is_some())
    }
}

impl Transaction {
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
