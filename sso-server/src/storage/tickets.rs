//! Tickets that were redeemed where each is redeemed once.

use std::{collections::HashSet, sync::LazyLock};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Dialect, Storage, StorageError, Transaction,
    batches::MOST,
    dialect::{Statement, Whole},
    rows::{Columns, micros},
};
use crate::model::ApplicationId;

/// Redemptions of one statement.
const SIZES: [usize; 3] = [1, 8, MOST];
static REDEEM: LazyLock<[Whole; 3]> = LazyLock::new(|| SIZES.map(redeem));

/// Marks so many tickets; what was not marked before comes back, and what is asked for twice comes back
/// once.
fn redeem(tickets: usize) -> Whole {
    let row = |number: usize| {
        let places = (4 * number + 1..4 * number + 5).map(|place| format!("${place}"));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    let rows = (0..tickets).map(row).collect::<Vec<_>>().join(", ");
    let text = format!(
        "INSERT INTO redeemed_tickets (ticket_id, application_id, redeemed_at, expires_at) \
         VALUES {rows} ON CONFLICT (application_id, ticket_id) DO NOTHING \
         RETURNING ticket_id, application_id"
    );
    Whole::of(tickets, &text, &text)
}

/// A ticket that is to be redeemed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Redemption {
    ticket: Uuid,
    application: ApplicationId,
    at: i64,
    expires_at: i64,
    /// Two who come with the same ticket are not one.
    asker: Uuid,
}

/// Marks tickets, and says of each whether it was this redemption that did.
pub(super) async fn redeem_together(
    storage: &Storage,
    redemptions: &[Redemption],
) -> Result<Vec<Option<bool>>, StorageError> {
    // Statements of several servers mark the same tickets in the same order, so that none waits for another
    // that waits for it.
    let mut sorted: Vec<_> = redemptions.iter().collect();
    sorted.sort_unstable_by_key(|it| (it.application.0, it.ticket));
    let rows = storage.write_whole(&*REDEEM, sorted.len(), |text, size| {
        // The places that are left have the last one again, which does nothing.
        let last = sorted.last().into_iter().cycle();
        sorted.iter().chain(last).take(size).fold(sqlx::query(text), |query, it| {
            query
                .bind(it.ticket.to_string())
                .bind(it.application.to_string())
                .bind(it.at)
                .bind(it.expires_at)
        })
    });
    let mut marked = HashSet::new();
    for row in rows.await? {
        let columns = Columns::of("redeemed_tickets", &row);
        marked.insert((columns.text("application_id")?, columns.text("ticket_id")?));
    }
    // Of those who came with the same one the first has it.
    let first =
        |it: &Redemption| marked.remove(&(it.application.to_string(), it.ticket.to_string()));
    Ok(redemptions.iter().map(first).map(Some).collect())
}

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

/// The statements for several tickets.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    REDEEM.iter().flat_map(|whole| whole.texts(dialect)).map(str::to_owned).collect()
}

impl Storage {
    /// Marks a ticket as redeemed by an application, durably; `false`, and nothing is written, when it was
    /// before. Of any number at the same time exactly one gets `true`. Those that come together are one
    /// statement.
    ///
    /// # Errors
    /// `Gone` when the application was deleted meanwhile; `Overloaded`, `Unavailable`.
    pub async fn redeem_ticket(
        &self,
        ticket: Uuid,
        application: ApplicationId,
        (at, expires_at): (OffsetDateTime, OffsetDateTime),
    ) -> Result<bool, StorageError> {
        let redemption = Redemption {
            ticket,
            application,
            at: micros(at),
            expires_at: micros(expires_at),
            asker: Uuid::now_v7(),
        };
        Ok(self.batches.redeem(self, redemption).await?.unwrap_or_default())
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
