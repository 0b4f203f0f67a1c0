//! Many rows, written as the server writes them but without its checks: a million through the front door
//! would take a while. And tickets, sealed as the server seals them.

use prost::{Message as _, bytes::Bytes};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row as _};
use sso_core::{clock::Clock, seal::Place, secret::SecretText};
use sso_proto::v1;
use sso_server::model::{
    Account, Bag, ConfigurationId, ExternalUser, Identifier, MappingId, Revision, Ticket,
    ticket_text,
};
use time::Duration;
use uuid::Uuid;

use super::stand::{HOSTED, Kind, ONCE, ONCE_MAPPINGS, STORE, Stand, WINDOWS_ACCOUNT};
use crate::raw;

/// Rows of one statement.
const BATCH: u64 = 500;
/// Statements of one transaction.
const STATEMENTS: u64 = 40;

/// The account of a mapping.
#[must_use]
pub fn account(number: u64) -> String {
    format!("DEV\\U{number:07}")
}

/// Fills the database of a stand as it was wanted.
///
/// # Panics
/// When the database does not take it.
pub async fn fill(stand: &Stand) {
    sqlx::any::install_default_drivers();
    let url = raw::database_url(&stand.system);
    let mut database = AnyConnection::connect(&url).await.expect("the database");
    let count = stand.wanted.mappings;
    for application in &stand.wanted.filled {
        match *application {
            STORE => configurations(stand, &mut database, count).await,
            ONCE => mappings(stand, &mut database, ONCE, ONCE_MAPPINGS).await,
            _ => mappings(stand, &mut database, application, count).await,
        }
    }
    if stand.wanted.database == Kind::Postgresql {
        run(&mut database, "ANALYZE".to_owned()).await;
    }
    database.close().await.expect("closed");
}

async fn run(database: &mut AnyConnection, text: String) {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(database).await.expect("a statement");
}

async fn id_of(database: &mut AnyConnection, application: &str) -> Uuid {
    let id: String = sqlx::query("SELECT id FROM applications WHERE name = $1")
        .bind(application)
        .fetch_one(database)
        .await
        .expect("the application")
        .get(0);
    id.parse().expect("an id")
}

/// Runs statements of [`BATCH`] rows each: `statement` makes one of the numbers in a range.
async fn in_batches(
    database: &mut AnyConnection,
    count: u64,
    statement: impl Fn(std::ops::Range<u64>) -> String,
) {
    let mut first = 0;
    while first < count {
        run(database, "BEGIN".to_owned()).await;
        for _ in 0..STATEMENTS {
            let last = count.min(first + BATCH);
            if first < last {
                run(database, statement(first..last)).await;
            }
            first = last;
        }
        run(database, "COMMIT".to_owned()).await;
    }
}

impl Stand {
    fn blob(&self, table: &'static str, row: &[u8], application: Uuid) -> String {
        let mut bag = Bag::default();
        let value = SecretText::new("s".repeat(self.wanted.value));
        bag.put(1, "Secret", value).expect("a value");
        let place = Place { table, column: "sealed", row, application: application.as_bytes() };
        let sealed = self.keys.seal(&place, bag.encode().expose()).expect("sealed");
        let hex = hex(&sealed);
        match self.wanted.database {
            Kind::Sqlite => format!("x'{hex}'"),
            Kind::Postgresql => format!("'\\x{hex}'::bytea"),
        }
    }

    /// Requests to redeem tickets of so many different accounts, at this application.
    ///
    /// # Panics
    /// When a ticket cannot be sealed.
    #[must_use]
    pub fn tickets(&self, application: &str, count: u64, accounts: u64) -> Vec<Bytes> {
        let place = Place { table: "tickets", column: "ticket", row: &[], application: &[] };
        let issued_at = Clock::System.now();
        let mut request =
            v1::RedeemTicketRequest { application: application.into(), ..Default::default() };
        let ticket = |number: u64| {
            let account = account(number % accounts.max(1));
            let ticket = Ticket {
                id: Uuid::now_v7(),
                account: Account::parse(&account).expect("an account"),
                subject: None,
                by_logon: None,
                token_groups: None,
                server: "sso-server-1".to_owned(),
                issued_at,
                expires_at: issued_at + Duration::hours(12),
                audience: None,
                validation_required: false,
            };
            let payload = ticket.encode().expect("a payload");
            let sealed = self.keys.seal(&place, payload.expose()).expect("sealed");
            let text = ticket_text(&sealed).expect("a text").expose().to_owned();
            request.ticket = Some(v1::Ticket { text });
            request.sender = Some(account);
            request.encode_to_vec().into()
        };
        (0..count).map(ticket).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |it: u8| DIGITS.get(usize::from(it)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

async fn configurations(stand: &Stand, database: &mut AnyConnection, count: u64) {
    let application = id_of(database, STORE).await;
    let statement = |numbers: std::ops::Range<u64>| {
        let (mut heads, mut revisions) = (Vec::new(), Vec::new());
        for number in numbers {
            let id = ConfigurationId::generate();
            let identifier = Identifier::parse(&format!("C{number:07}")).expect("an identifier");
            let row = id.row(Revision(1), &identifier);
            let sealed = stand.blob("configuration_revisions", &row, application);
            heads.push(format!(
                "('{id}', '{application}', '{}', '{}', 1, 0, 1, 'fill')",
                identifier.as_str(),
                identifier.key()
            ));
            revisions.push(format!("('{id}', 1, {sealed}, 1, '[\"Secret\"]', NULL, 1, 'fill')"));
        }
        format!(
            "INSERT INTO configurations (id, application_id, identifier, identifier_key, revision, \
             deleted_revision, updated_at, updated_by) VALUES {}; \
             INSERT INTO configuration_revisions (configuration_id, revision, sealed, generation, \
             changed, rolled_back_to, written_at, written_by) VALUES {}",
            heads.join(", "),
            revisions.join(", ")
        )
    };
    in_batches(database, count, statement).await;
}

async fn mappings(stand: &Stand, database: &mut AnyConnection, name: &str, count: u64) {
    let application = id_of(database, name).await;
    let hosted = name == HOSTED;
    let statement = |numbers: std::ops::Range<u64>| {
        let row = |number: u64| {
            let account = if hosted { WINDOWS_ACCOUNT.to_owned() } else { account(number) };
            let account = Account::parse(&account).expect("an account");
            let external = ExternalUser::parse(&format!("E{number:07}")).expect("a user");
            let id = MappingId::generate();
            let row = id.row((!hosted).then_some(&account), &external);
            let sealed = stand.blob("mappings", &row, application);
            let (key, external_key) = (account.key(), external.key());
            // Many external users are one account.
            let unique = if hosted { "NULL".to_owned() } else { format!("'{key}'") };
            format!(
                "('{id}', '{application}', '{}', '{key}', '{}', '{external_key}', {unique}, \
                 '{external_key}', 'enabled', {sealed}, 1, 1, 1, 1, 'fill')",
                account.as_str(),
                external.as_str()
            )
        };
        format!(
            "INSERT INTO mappings (id, application_id, account, account_key, external_user, \
             external_user_key, unique_account_key, unique_external_user_key, state, sealed, \
             generation, credentials_at, created_at, updated_at, updated_by) VALUES {}",
            numbers.map(row).collect::<Vec<_>>().join(", ")
        )
    };
    in_batches(database, count, statement).await;
}
