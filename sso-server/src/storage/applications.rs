//! Applications with their accounts and fields.
//!
//! One statement reads an application whole, so that what is read belongs to one moment: a common
//! table expression picks the applications, and three parts of a union bring rows of the
//! application, of its accounts and of its fields.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    error::is_unique_violation,
    rows::{Columns, clean, cut, fold, json, micros},
    whole::Bound,
};
use crate::model::{
    Account, Accounts, Application, ApplicationFlag, ApplicationFlags, ApplicationId,
    ApplicationName, ApplicationType, Field, Fields, Label, Page, PageRequest,
};

const TABLE: &str = "applications";
/// The words for the roles.
const USER: &str = "user";
const ADMINISTRATOR: &str = "administrator";
const WINDOWS: &str = "windows";
const BY_KEY: &str = "SELECT id FROM applications WHERE name_key = $1";

macro_rules! whole {
    ($($page:tt)*) => {
        concat!(
            "WITH page AS (", $($page)*, ") ",
            "SELECT 'application' AS part, id, 0 AS place, name AS text, 0 AS flag, name_key, type, ",
            "description, contact, administrators_same, allow_local_accounts, enabled, flags, ",
            "ticket_timeout, created_at, updated_at FROM page ",
            "UNION ALL SELECT role, page.id, position, account, 0, NULL, NULL, NULL, NULL, NULL, ",
            "NULL, NULL, NULL, NULL, NULL, NULL FROM page ",
            "JOIN application_accounts ON application_id = page.id ",
            "UNION ALL SELECT 'field', page.id, ordinal, label, masked + 2 * synchronized, NULL, ",
            "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM page JOIN fields ON application_id = page.id"
        )
    };
}
macro_rules! listed {
    ($keys:literal) => {
        whole!(
            "SELECT * FROM applications WHERE name_key > $1 ",
            "AND ($2 = '' OR name_key LIKE $2 ESCAPE '!') AND ($3 = '' OR type = $3) ",
            "AND ($4 = '' OR contact_key = $4) ",
            "AND ($5 = 1 OR id IN (SELECT application_id FROM application_accounts ",
            "WHERE account_key IN (",
            $keys,
            "))) ORDER BY name_key LIMIT $7"
        )
    };
}
const LOAD: &str = whole!("SELECT * FROM applications WHERE name_key = $1");
const LIST: Statement = Statement {
    sqlite: listed!("SELECT value FROM json_each($6)"),
    postgres: listed!("SELECT json_array_elements_text(CAST(CAST($6 AS TEXT) AS JSON))"),
};
const WITH_ACCOUNT: &str = "\
    SELECT id, name, name_key FROM applications WHERE enabled = 1 AND id IN (\
    SELECT application_id FROM application_accounts \
    WHERE account_key = $1 AND role IN ('user', 'administrator')) ORDER BY name_key";
const LOCK: Statement = Statement {
    sqlite: BY_KEY,
    postgres: "SELECT id FROM applications WHERE name_key = $1 FOR NO KEY UPDATE",
};
const INSERT: &str = "\
    INSERT INTO applications (id, name, name_key, type, description, contact, contact_key, \
    administrators_same, allow_local_accounts, enabled, flags, ticket_timeout, created_at, \
    updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
const UPDATE: &str = "\
    UPDATE applications SET description = $1, contact = $2, contact_key = $3, \
    allow_local_accounts = $4, enabled = $5, flags = $6, ticket_timeout = $7, updated_at = $8 \
    WHERE id = $9";
const COUNT_MAPPINGS: &str = "SELECT COUNT(*) AS mappings FROM mappings WHERE application_id = $1";
const DELETE: &str = "DELETE FROM applications WHERE id = $1";
const NAME: &str = "SELECT id, name, name_key FROM applications WHERE id = $1";
const CLEAR_ACCOUNTS: &str = "DELETE FROM application_accounts WHERE application_id = $1";
const INSERT_ACCOUNT: &str = "\
    INSERT INTO application_accounts (application_id, role, position, account, account_key) \
    VALUES ($1, $2, $3, $4, $5)";
const INSERT_FIELD: &str = "\
    INSERT INTO fields (application_id, ordinal, label, label_key, masked, synchronized) \
    VALUES ($1, $2, $3, $4, $5, $6)";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(LOAD),
    LIST,
    Statement::same(WITH_ACCOUNT),
    LOCK,
    Statement::same(INSERT),
    Statement::same(UPDATE),
    Statement::same(COUNT_MAPPINGS),
    Statement::same(DELETE),
    Statement::same(NAME),
    Statement::same(CLEAR_ACCOUNTS),
    Statement::same(INSERT_ACCOUNT),
    Statement::same(INSERT_FIELD),
];

/// Which applications a list holds; the default holds all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationFilter {
    /// Part of the name, in any case; empty = any name.
    pub name_contains: String,
    /// Of this type only.
    pub kind: Option<ApplicationType>,
    /// Of exactly this contact, in any case; empty = any.
    pub contact: String,
    /// Only those in which one of these account keys holds a role; `None` = all.
    pub visible_to: Option<Vec<String>>,
}

impl Storage {
    /// The name of the application of this id; `None` when it was deleted.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn application_name(
        &self,
        id: ApplicationId,
    ) -> Result<Option<ApplicationName>, StorageError> {
        let rows = self.rows(|| sqlx::query(NAME).bind(id.to_string())).await?;
        rows.first().map(named).transpose()
    }

    /// Applications by name.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn applications(
        &self,
        filter: &ApplicationFilter,
        page: &PageRequest,
    ) -> Result<Page<Application>, StorageError> {
        let keys = filter.visible_to.as_deref();
        let query = || {
            sqlx::query(self.dialect().pick(&LIST))
                .bind(clean(page.after.as_deref().unwrap_or_default()))
                .bind(pattern(&filter.name_contains))
                .bind(filter.kind.map_or("", ApplicationType::as_str))
                .bind(fold(&filter.contact))
                .bind(i64::from(keys.is_none()))
                .bind(json(keys.unwrap_or_default()))
                .bind(i64::from(page.size) + 1)
        };
        let rows = self.rows(query).await?;
        Ok(cut(assemble(&rows)?, page, |application| application.name.key().to_owned()))
    }

    /// The enabled applications in which this account, a canonical key, is literally a user or an
    /// administrator; by name.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn applications_with_account(
        &self,
        account_key: &str,
    ) -> Result<Vec<ApplicationName>, StorageError> {
        let rows = self.rows(|| sqlx::query(WITH_ACCOUNT).bind(clean(account_key))).await?;
        rows.iter().map(named).collect()
    }
}

impl Transaction {
    /// The application of this name, as this transaction sees it.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn application(
        &mut self,
        name: &ApplicationName,
    ) -> Result<Option<Application>, StorageError> {
        let rows = of_name(name.key()).fetch_all(self.connection()).await?;
        Ok(assemble(&rows)?.pop())
    }

    /// The application of this name, held against changes by others until the end of this
    /// transaction.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn lock_application(
        &mut self,
        name: &ApplicationName,
    ) -> Result<Option<Application>, StorageError> {
        let lock = self.dialect().pick(&LOCK);
        sqlx::query(lock).bind(name.key()).fetch_all(self.connection()).await?;
        self.application(name).await
    }

    /// Writes a new application with its accounts and fields.
    ///
    /// # Errors
    /// `NameTaken`, after which the transaction is of no more use.
    pub async fn insert_application(
        &mut self,
        application: &Application,
    ) -> Result<(), StorageError> {
        let inserted = sqlx::query(INSERT)
            .bind(application.id.to_string())
            .bind(application.name.as_str())
            .bind(application.name.key())
            .bind(application.kind.as_str())
            .bind(&*application.description)
            .bind(&*application.contact)
            .bind(fold(&application.contact))
            .bind(i64::from(application.administrators_same))
            .bind(i64::from(application.allow_local_accounts))
            .bind(i64::from(application.enabled))
            .bind(flags(application))
            .bind(i64::from(application.ticket_timeout))
            .bind(micros(application.created_at))
            .bind(micros(application.updated_at))
            .execute(self.connection())
            .await;
        match inserted {
            Ok(_) => {}
            Err(error) if is_unique_violation(&error) => {
                return Err(StorageError::NameTaken(application.name.as_str().to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        for field in application.fields.iter() {
            self.insert_field(application.id, field).await?;
        }
        self.insert_accounts(application).await
    }

    /// Writes description, contact, accounts, flags, ticket timeout and time of the last change;
    /// `false` when there is no such application. Read it with [`Self::lock_application`] first, or a
    /// change of another is lost.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn update_application(
        &mut self,
        application: &Application,
    ) -> Result<bool, StorageError> {
        let done = sqlx::query(UPDATE)
            .bind(&*application.description)
            .bind(&*application.contact)
            .bind(fold(&application.contact))
            .bind(i64::from(application.allow_local_accounts))
            .bind(i64::from(application.enabled))
            .bind(flags(application))
            .bind(i64::from(application.ticket_timeout))
            .bind(micros(application.updated_at))
            .bind(application.id.to_string())
            .execute(self.connection())
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(CLEAR_ACCOUNTS)
            .bind(application.id.to_string())
            .execute(self.connection())
            .await?;
        self.insert_accounts(application).await?;
        Ok(true)
    }

    async fn insert_accounts(&mut self, application: &Application) -> Result<(), StorageError> {
        let windows: Accounts = application.windows_account.iter().cloned().collect();
        let roles = [
            (USER, &application.users),
            (ADMINISTRATOR, &application.administrators),
            (WINDOWS, &windows),
        ];
        for (role, accounts) in roles {
            for (position, account) in (0_i64..).zip(accounts.iter()) {
                sqlx::query(INSERT_ACCOUNT)
                    .bind(application.id.to_string())
                    .bind(role)
                    .bind(position)
                    .bind(account.as_str())
                    .bind(account.key())
                    .execute(self.connection())
                    .await?;
            }
        }
        Ok(())
    }

    /// Writes a field. Its ordinal is the next one of an application that this transaction read with
    /// [`Self::lock_application`], so that adders at the same time follow one another.
    ///
    /// # Errors
    /// `Gone` when there is no such application, `LabelTaken`.
    pub async fn insert_field(
        &mut self,
        id: ApplicationId,
        field: &Field,
    ) -> Result<(), StorageError> {
        let inserted = sqlx::query(INSERT_FIELD)
            .bind(id.to_string())
            .bind(i64::from(field.ordinal))
            .bind(field.label.as_str())
            .bind(field.label.key())
            .bind(i64::from(field.masked))
            .bind(i64::from(field.synchronized))
            .execute(self.connection())
            .await;
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if is_unique_violation(&error) => Err(StorageError::LabelTaken),
            Err(error) => Err(error.into()),
        }
    }

    /// How many mappings are kept under an application.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn mapping_count(&mut self, id: ApplicationId) -> Result<u64, StorageError> {
        let rows =
            sqlx::query(COUNT_MAPPINGS).bind(id.to_string()).fetch_all(self.connection()).await?;
        rows.first().map_or(Ok(0), |row| Columns::of("mappings", row).number("mappings"))
    }

    /// Deletes an application with everything kept under it; `false` when there is none.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delete_application(&mut self, id: ApplicationId) -> Result<bool, StorageError> {
        let done = sqlx::query(DELETE).bind(id.to_string()).execute(self.connection()).await?;
        Ok(done.rows_affected() > 0)
    }
}

/// The application of this canonical name.
pub(super) fn of_name(name_key: &str) -> Bound<'_> {
    sqlx::query(LOAD).bind(name_key)
}

/// A LIKE pattern for names that contain `part`; "" for any name.
fn pattern(part: &str) -> String {
    let mut pattern = String::new();
    for c in fold(part).chars() {
        if matches!(c, '!' | '%' | '_') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    if pattern.is_empty() { pattern } else { format!("%{pattern}%") }
}

/// What the accounts and fields of one application are while its rows come in.
#[derive(Default)]
struct Parts {
    users: Vec<(i64, Account)>,
    administrators: Vec<(i64, Account)>,
    windows: Option<Account>,
    fields: Vec<Field>,
}

/// Puts applications together from rows in any order; by name.
pub(super) fn assemble(rows: &[AnyRow]) -> Result<Vec<Application>, StorageError> {
    let mut parts: HashMap<Uuid, Parts> = HashMap::new();
    let mut heads = Vec::new();
    for row in rows {
        let columns = Columns::of(TABLE, row);
        let id = columns.uuid("id")?;
        let columns = Columns::named(TABLE, row, id.to_string());
        let of_id = parts.entry(id).or_default();
        match &*columns.text("part")? {
            "application" => heads.push((ApplicationId(id), columns)),
            "field" => of_id.fields.push(field(&columns)?),
            USER => of_id.users.push(holder(&columns)?),
            ADMINISTRATOR => of_id.administrators.push(holder(&columns)?),
            WINDOWS => of_id.windows = Some(columns.parse("text", Account::parse)?),
            other => return Err(columns.corrupt(format!("unknown role {other}"))),
        }
    }
    let mut applications = heads
        .iter()
        .map(|(id, columns)| application(*id, columns, parts.remove(&id.0).unwrap_or_default()))
        .collect::<Result<Vec<_>, _>>()?;
    applications.sort_by(|one, other| one.name.key().cmp(other.name.key()));
    Ok(applications)
}

/// Place and account of one who holds a role.
fn holder(columns: &Columns<'_>) -> Result<(i64, Account), StorageError> {
    Ok((columns.signed("place")?, columns.parse("text", Account::parse)?))
}

/// A field; the flag tells its mask (1) and its synchronization (2).
fn field(columns: &Columns<'_>) -> Result<Field, StorageError> {
    let flag: u8 = columns.number("flag")?;
    if flag > 3 {
        return Err(columns.corrupt("a field has a flag that is not 0 or 1"));
    }
    Ok(Field {
        ordinal: columns.number("place")?,
        label: columns.parse("text", Label::parse)?,
        masked: flag & 1 != 0,
        synchronized: flag & 2 != 0,
    })
}

/// The flags as they are stored.
fn flags(application: &Application) -> String {
    let names: Vec<_> = application.flags.iter().map(|flag| flag.as_str().to_owned()).collect();
    json(&names)
}

fn named(row: &AnyRow) -> Result<ApplicationName, StorageError> {
    let id = Columns::of(TABLE, row).uuid("id")?;
    name(&Columns::named(TABLE, row, id.to_string()), "name")
}

/// The name of an application in this column, with its key beside it.
pub(super) fn name(columns: &Columns<'_>, column: &str) -> Result<ApplicationName, StorageError> {
    let name = columns.parse(column, ApplicationName::parse)?;
    if columns.text("name_key")? != name.key() {
        return Err(columns.corrupt("column name_key is not the key of the name"));
    }
    Ok(name)
}

fn application(
    id: ApplicationId,
    columns: &Columns<'_>,
    parts: Parts,
) -> Result<Application, StorageError> {
    let name = name(columns, "text")?;
    let kind = columns.parse("type", |word| {
        ApplicationType::parse(word).ok_or("a type this version does not keep")
    })?;
    let flag = |name: &String| {
        ApplicationFlag::parse(name)
            .ok_or_else(|| columns.corrupt("column flags names a flag this version does not know"))
    };
    let flags = columns.list("flags")?.iter().map(flag).collect::<Result<Vec<_>, _>>()?;
    let fields = Fields::from_stored(kind, parts.fields)
        .map_err(|error| columns.corrupt(format!("its fields: {error}")))?;
    let in_order = |mut accounts: Vec<(i64, Account)>| -> Accounts {
        accounts.sort_by_key(|(position, _)| *position);
        accounts.into_iter().map(|(_, account)| account).collect()
    };
    Ok(Application {
        id,
        name,
        kind,
        description: columns.text("description")?,
        contact: columns.text("contact")?,
        users: in_order(parts.users),
        windows_account: parts.windows,
        administrators: in_order(parts.administrators),
        administrators_same: columns.flag("administrators_same")?,
        allow_local_accounts: columns.flag("allow_local_accounts")?,
        enabled: columns.flag("enabled")?,
        flags: ApplicationFlags::from_stored(flags),
        ticket_timeout: columns.number("ticket_timeout")?,
        fields,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_every_character_as_itself() {
        assert_eq!(pattern(""), "");
        assert_eq!(pattern("Or_der%!"), "%or!_der!%!!%");
    }
}
