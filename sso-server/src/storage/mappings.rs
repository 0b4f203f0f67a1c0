//! Mappings with their sealed credentials.
//!
//! A list goes through applications by name, and through the mappings of each in the order of an
//! index, from where the page before ended: a page costs the same at any place of any application.

use std::fmt::Write as _;

use sqlx::{AnyConnection, AssertSqlSafe, SqlSafeStr as _, any::AnyRow};
use time::OffsetDateTime;

use super::{
    Dialect, Storage, StorageError, Transaction, applications,
    dialect::Statement,
    rows::{Columns, clean, cut, micros},
};
use crate::model::{
    Account, ApplicationId, ApplicationName, ApplicationType, ExternalUser, Mapping, MappingId,
    MappingKey, MappingState, Page, PageRequest,
};

const TABLE: &str = "mappings";

macro_rules! columns {
    () => {
        "SELECT m.id, m.application_id, m.account, m.account_key, m.external_user, \
         m.external_user_key, m.unique_account_key, m.unique_external_user_key, m.state, \
         m.credentials_at, m.created_at, m.updated_at, m.updated_by"
    };
}
macro_rules! one {
    ($side:literal, $lock:literal) => {
        concat!(
            columns!(),
            ", m.sealed, m.generation FROM mappings m WHERE m.application_id = $1 AND ",
            $side,
            " = $2 ORDER BY m.id LIMIT 1",
            $lock
        )
    };
}
pub(super) const BY_ACCOUNT: &str = one!("m.account_key", "");
pub(super) const BY_EXTERNAL_USER: &str = one!("m.external_user_key", "");
const LOCK_BY_ACCOUNT: Statement =
    Statement { sqlite: BY_ACCOUNT, postgres: one!("m.account_key", " FOR NO KEY UPDATE") };
const LOCK_BY_EXTERNAL_USER: Statement = Statement {
    sqlite: BY_EXTERNAL_USER,
    postgres: one!("m.external_user_key", " FOR NO KEY UPDATE"),
};
/// A list up to the conditions on mappings. Places 1 to 3 are the name of the application that the
/// page before ended in, the limit, and the id that page ended with.
const LIST: Statement = Statement {
    // The order of a CROSS JOIN is the order of its loops.
    sqlite: concat!(
        columns!(),
        ", a.name, a.name_key FROM applications a CROSS JOIN mappings m ON m.application_id = a.id ",
        "WHERE a.name_key >= $1"
    ),
    postgres: concat!(
        columns!(),
        ", a.name, a.name_key FROM applications a CROSS JOIN LATERAL (",
        columns!(),
        " FROM mappings m WHERE m.application_id = a.id"
    ),
};
/// Mappings of all accounts: behind the one with the account of place 4 in the application that the
/// page before ended in, from the start in those behind it.
const OF_ALL: &str = " AND (m.account_key, m.id) > (CASE WHEN a.name_key > $1 THEN '' ELSE $4 END, \
    CASE WHEN a.name_key > $1 THEN '' ELSE $3 END)";
/// Of one account, for which alone the index gives the place to begin at.
const OF_ACCOUNT: &str =
    " AND m.account_key = $4 AND m.id > CASE WHEN a.name_key > $1 THEN '' ELSE $3 END";
/// Between the conditions on mappings and those on applications.
const LISTED: Statement = Statement {
    sqlite: "",
    postgres: " ORDER BY m.account_key, m.id LIMIT $2) m WHERE a.name_key >= $1",
};
const ORDER: &str = " ORDER BY a.name_key, m.account_key, m.id LIMIT $2";
const INSERT: &str = "\
    INSERT INTO mappings (id, application_id, account, account_key, external_user, \
    external_user_key, unique_account_key, unique_external_user_key, state, sealed, generation, \
    credentials_at, created_at, updated_at, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
    $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING";
const UPDATE: &str = "\
    UPDATE mappings SET state = $1, updated_at = $2, updated_by = $3 WHERE id = $4";
const SET_CREDENTIALS: &str = "\
    UPDATE mappings SET sealed = $1, generation = $2, credentials_at = $3, updated_at = $4, \
    updated_by = $5 WHERE id = $6";
const MOVE: &str = "\
    UPDATE mappings SET account = $1, account_key = $2 WHERE application_id = $3";
const DELETE: &str = "DELETE FROM mappings WHERE id = $1";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(BY_ACCOUNT),
    Statement::same(BY_EXTERNAL_USER),
    LOCK_BY_ACCOUNT,
    LOCK_BY_EXTERNAL_USER,
    Statement::same(INSERT),
    Statement::same(UPDATE),
    Statement::same(SET_CREDENTIALS),
    Statement::same(MOVE),
    Statement::same(DELETE),
];

/// The statements that are put together from parts, each condition at least once.
pub(super) fn built_statements(dialect: Dialect) -> Vec<String> {
    let all = MappingFilter::default();
    let of_account = MappingFilter { account_key: Some(String::new()), ..all.clone() };
    let of_one = MappingFilter {
        application: Some(ApplicationId::generate()),
        external_user_key: Some(String::new()),
        ..of_account.clone()
    };
    [all, of_account, of_one].iter().map(|filter| list(dialect, filter, "").0).collect()
}

/// The credentials of a mapping as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCredentials {
    /// The generation they are sealed under.
    pub generation: u32,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

/// A mapping as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMapping {
    /// The mapping.
    pub mapping: Mapping,
    /// Its credentials; `None` where none were set.
    pub credentials: Option<SealedCredentials>,
}

/// Which mappings a list holds; the default holds all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappingFilter {
    /// Only of this application.
    pub application: Option<ApplicationId>,
    /// Only of this account: canonical key.
    pub account_key: Option<String>,
    /// Only of this external user: canonical key.
    pub external_user_key: Option<String>,
}

impl Storage {
    /// Mappings by name of the application, then canonical account, then id.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`. A page that begins behind no mapping of this list is empty.
    pub async fn mappings(
        &self,
        filter: &MappingFilter,
        page: &PageRequest,
    ) -> Result<Page<(Mapping, ApplicationName)>, StorageError> {
        let after = page.after.as_deref().map(parse_position);
        let (name, account, id) = match (after, &filter.account_key) {
            (None, _) => ("", "", ""),
            (Some(Some(after)), None) => after,
            (Some(Some(after)), Some(key)) if after.1 == key => after,
            (Some(_), _) => return Ok(Page { entries: Vec::new(), next: None }),
        };
        let (text, binds) = list(self.dialect(), filter, account);
        let text = AssertSqlSafe(text).into_sql_str();
        let query = || {
            let query = sqlx::query(text.clone())
                .bind(clean(name))
                .bind(i64::from(page.size) + 1)
                .bind(clean(id));
            binds.iter().fold(query, |query, bind| query.bind(bind.clone()))
        };
        let rows = self.rows(query).await?;
        let mappings = rows.iter().map(listed).collect::<Result<Vec<_>, _>>()?;
        Ok(cut(mappings, page, |(mapping, name)| position(mapping, name)))
    }
}

impl Transaction {
    /// The mapping of this key with its credentials, held against changes by others until the end of
    /// this transaction.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn lock_mapping(
        &mut self,
        application: ApplicationId,
        key: &MappingKey,
    ) -> Result<Option<StoredMapping>, StorageError> {
        let statement = self.dialect().pick(match key {
            MappingKey::Account(_) => &LOCK_BY_ACCOUNT,
            MappingKey::ExternalUser(_) => &LOCK_BY_EXTERNAL_USER,
        });
        find(self.connection(), statement, application, key).await
    }

    /// Writes a new mapping of an application of this type; `false` when a side that is unique in
    /// that type is taken, after which the transaction goes on.
    ///
    /// # Errors
    /// `Gone` when the application was deleted meanwhile; `GenerationClosed`.
    pub async fn insert_mapping(
        &mut self,
        kind: ApplicationType,
        stored: &StoredMapping,
    ) -> Result<bool, StorageError> {
        let mapping = &stored.mapping;
        let credentials = stored.credentials.as_ref();
        if let Some(credentials) = credentials {
            self.hold_generation(credentials.generation).await?;
        }
        let (account, external_user) = (mapping.account.key(), mapping.external_user.key());
        let (account_is_unique, external_user_is_unique) = unique_sides(kind);
        let done = sqlx::query(INSERT)
            .bind(mapping.id.to_string())
            .bind(mapping.application.to_string())
            .bind(mapping.account.as_str())
            .bind(account)
            .bind(mapping.external_user.as_str())
            .bind(external_user)
            .bind(account_is_unique.then_some(account))
            .bind(external_user_is_unique.then_some(external_user))
            .bind(mapping.state.as_str())
            .bind(credentials.map(|credentials| &*credentials.sealed))
            .bind(credentials.map(|credentials| i64::from(credentials.generation)))
            .bind(credentials.map(|_| micros(credentials_time(mapping))))
            .bind(micros(mapping.created_at))
            .bind(micros(mapping.updated_at))
            .bind(&*mapping.updated_by)
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes state, and time and author of the last change; `false` when there is no such mapping.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn update_mapping(&mut self, mapping: &Mapping) -> Result<bool, StorageError> {
        let done = sqlx::query(UPDATE)
            .bind(mapping.state.as_str())
            .bind(micros(mapping.updated_at))
            .bind(&*mapping.updated_by)
            .bind(mapping.id.to_string())
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes credentials, their time, and time and author of the last change; `false` when there is
    /// no such mapping.
    ///
    /// # Errors
    /// `GenerationClosed`; `Unavailable`.
    pub async fn set_credentials(
        &mut self,
        mapping: &Mapping,
        credentials: &SealedCredentials,
    ) -> Result<bool, StorageError> {
        self.hold_generation(credentials.generation).await?;
        let done = sqlx::query(SET_CREDENTIALS)
            .bind(&*credentials.sealed)
            .bind(i64::from(credentials.generation))
            .bind(micros(credentials_time(mapping)))
            .bind(micros(mapping.updated_at))
            .bind(&*mapping.updated_by)
            .bind(mapping.id.to_string())
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Gives all mappings of a host group application, where accounts are not unique, to its new
    /// account.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn move_mappings(
        &mut self,
        application: ApplicationId,
        account: &Account,
    ) -> Result<(), StorageError> {
        sqlx::query(MOVE)
            .bind(account.as_str())
            .bind(account.key())
            .bind(application.to_string())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Deletes a mapping with its credentials; `false` when there is none.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delete_mapping(&mut self, id: MappingId) -> Result<bool, StorageError> {
        let done = sqlx::query(DELETE).bind(id.to_string()).execute(self.connection()).await?;
        Ok(done.rows_affected() > 0)
    }
}

/// Whether accounts, and whether external users, are unique in an application of this type.
fn unique_sides(kind: ApplicationType) -> (bool, bool) {
    match kind {
        ApplicationType::Individual => (true, true),
        ApplicationType::Group => (true, false),
        ApplicationType::HostGroup => (false, true),
        // It keeps no mappings; should one come, it gets the strictest rule.
        ApplicationType::ConfigStore => (true, true),
    }
}

/// When the credentials that are written with it were stored.
fn credentials_time(mapping: &Mapping) -> OffsetDateTime {
    mapping.credentials_at.unwrap_or(mapping.updated_at)
}

/// The statement of a list, of constant parts and numbered places only, and what goes to the places
/// from the fourth on. `after` is the account that the page before ended with.
fn list(dialect: Dialect, filter: &MappingFilter, after: &str) -> (String, Vec<String>) {
    let (behind, account) = match filter.account_key.as_deref() {
        None => (OF_ALL, after),
        Some(key) => (OF_ACCOUNT, key),
    };
    let mut text = dialect.pick(&LIST).to_owned() + behind;
    let mut binds = vec![clean(account)];
    let mut and = |text: &mut String, part: &'static str, bind: String| {
        binds.push(bind);
        // Writing to a String cannot fail.
        let _ = write!(text, "{part}${}", binds.len() + 3);
    };
    if let Some(key) = &filter.external_user_key {
        and(&mut text, " AND m.external_user_key = ", clean(key));
    }
    text.push_str(dialect.pick(&LISTED));
    if let Some(application) = filter.application {
        and(&mut text, " AND a.id = ", application.to_string());
    }
    text.push_str(ORDER);
    (text, binds)
}

/// What names the place of a mapping in a list. None of its parts holds a line break.
fn position(mapping: &Mapping, name: &ApplicationName) -> String {
    format!("{}\n{}\n{}", name.key(), mapping.account.key(), mapping.id)
}

fn parse_position(after: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = after.split_once('\n')?;
    let (account, id) = rest.split_once('\n')?;
    Some((name, account, id))
}

async fn find(
    connection: &mut AnyConnection,
    statement: &'static str,
    application: ApplicationId,
    key: &MappingKey,
) -> Result<Option<StoredMapping>, StorageError> {
    let key = match key {
        MappingKey::Account(account) => account.key(),
        MappingKey::ExternalUser(user) => user.key(),
    };
    let rows = sqlx::query(statement)
        .bind(application.to_string())
        .bind(key)
        .fetch_all(connection)
        .await?;
    rows.first().map(stored).transpose()
}

fn listed(row: &AnyRow) -> Result<(Mapping, ApplicationName), StorageError> {
    let mapping = mapping(row)?;
    let columns = Columns::named("applications", row, mapping.application.to_string());
    let name = applications::name(&columns, "name")?;
    Ok((mapping, name))
}

pub(super) fn stored(row: &AnyRow) -> Result<StoredMapping, StorageError> {
    let mapping = mapping(row)?;
    let columns = Columns::named(TABLE, row, mapping.id.to_string());
    let sealed = columns.optional_bytes("sealed")?;
    let generation = columns.optional_number("generation")?;
    let credentials = match (sealed, generation, mapping.credentials_at) {
        (Some(sealed), Some(generation), Some(_)) => Some(SealedCredentials { generation, sealed }),
        (None, None, None) => None,
        _ => return Err(columns.corrupt("only a part of its credentials is there")),
    };
    Ok(StoredMapping { mapping, credentials })
}

fn mapping(row: &AnyRow) -> Result<Mapping, StorageError> {
    let id = Columns::of(TABLE, row).uuid("id")?;
    let columns = Columns::named(TABLE, row, id.to_string());
    let account = columns.parse("account", Account::parse)?;
    let external_user = columns.parse("external_user", ExternalUser::parse)?;
    if columns.text("account_key")? != account.key() {
        return Err(columns.corrupt("column account_key is not the key of the account"));
    }
    if columns.text("external_user_key")? != external_user.key() {
        return Err(columns.corrupt("column external_user_key is not the key of the external user"));
    }
    for (column, key) in
        [("unique_account_key", account.key()), ("unique_external_user_key", external_user.key())]
    {
        if columns.optional_text(column)?.is_some_and(|unique| unique != key) {
            return Err(columns.corrupt(format!("column {column} is not the key beside it")));
        }
    }
    Ok(Mapping {
        id: MappingId(id),
        application: ApplicationId(columns.uuid("application_id")?),
        account,
        external_user,
        state: columns
            .parse("state", |word| MappingState::parse(word).ok_or("an unknown state"))?,
        credentials_at: columns.optional_time("credentials_at")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        updated_by: columns.text("updated_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::plans, *};

    #[test]
    fn lists_number_their_places_in_order() {
        let mut filter = MappingFilter {
            application: Some(ApplicationId::generate()),
            account_key: Some("d\\a".to_owned()),
            external_user_key: None,
        };
        let (text, binds) = list(Dialect::Postgres, &filter, "");
        assert!(text.ends_with("AND a.id = $5 ORDER BY a.name_key, m.account_key, m.id LIMIT $2"));
        assert_eq!(binds.len(), 2);
        filter.external_user_key = Some("u".to_owned());
        let (text, binds) = list(Dialect::Sqlite, &filter, "d\\a");
        assert!(text.contains("AND m.external_user_key = $5 AND a.id = $6 ORDER BY"));
        assert_eq!(binds[..2], ["d\\a", "u"]);
    }

    #[tokio::test]
    async fn nothing_reads_or_sorts_all_mappings_of_an_application() {
        let folder = tempfile::tempdir().unwrap();
        let storage = plans::storage(folder.path()).await;
        let text = || Some("x".to_owned());
        for (account_key, external_user_key) in
            [(None, None), (text(), None), (None, text()), (text(), text())]
        {
            for application in [None, Some(ApplicationId::generate())] {
                let (account, user) = (account_key.clone(), external_user_key.clone());
                let filter =
                    MappingFilter { application, account_key: account, external_user_key: user };
                let plan = plans::plan(&storage, &list(Dialect::Sqlite, &filter, "").0).await;
                assert!(!plan.contains("SCAN") && !plan.contains("TEMP"), "{filter:?}: {plan}");
                assert!(plan.contains("id>?") || plan.contains("id)>(?,?)"), "{filter:?}: {plan}");
            }
        }
        for (statement, columns) in [
            (BY_ACCOUNT, "(application_id=? AND account_key=?)"),
            (BY_EXTERNAL_USER, "(application_id=? AND external_user_key=?)"),
        ] {
            let plan = plans::plan(&storage, statement).await;
            assert!(plan.contains(columns), "{plan}");
        }
        storage.close().await;
    }

    #[test]
    fn only_a_place_of_this_list_is_one() {
        assert_eq!(parse_position("app\nd\\a\n1"), Some(("app", "d\\a", "1")));
        assert_eq!(parse_position("app\nd\\a"), None);
    }
}
