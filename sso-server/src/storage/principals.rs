//! Who had an account name first.

use sqlx::any::AnyRow;
use time::OffsetDateTime;

use super::{
    Storage, StorageError, Transaction,
    dialect::Statement,
    rows::{Columns, clean, cut, micros},
};
use crate::model::{Account, Page, PageRequest, Principal};

const TABLE: &str = "principals";
const LOAD: &str = "\
    SELECT account_key, account, subject, first_seen_at, refused_subject, refused_at \
    FROM principals WHERE account_key = $1";
const LIST: &str = "\
    SELECT account_key, account, subject, first_seen_at, refused_subject, refused_at \
    FROM principals WHERE account_key > $1 AND ($2 = 0 OR refused_subject IS NOT NULL) \
    ORDER BY account_key LIMIT $3";
const INSERT: &str = "\
    INSERT INTO principals (account_key, account, subject, first_seen_at) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (account_key) DO NOTHING";
const REFUSE: &str = "\
    UPDATE principals SET refused_subject = $1, refused_at = $2 WHERE account_key = $3";
const DELETE: &str = "DELETE FROM principals WHERE account_key = $1";

pub(super) const STATEMENTS: &[Statement] = &[
    Statement::same(LOAD),
    Statement::same(LIST),
    Statement::same(INSERT),
    Statement::same(REFUSE),
    Statement::same(DELETE),
];

impl Storage {
    /// Whom this account name belongs to.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn principal(&self, account: &Account) -> Result<Option<Principal>, StorageError> {
        let rows = self.rows(|| sqlx::query(LOAD).bind(account.key())).await?;
        rows.first().map(parse).transpose()
    }

    /// Principals by account; with `replaced`, only those whose name somebody else came with.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn principals(
        &self,
        replaced: bool,
        page: &PageRequest,
    ) -> Result<Page<Principal>, StorageError> {
        let query = || {
            sqlx::query(LIST)
                .bind(clean(page.after.as_deref().unwrap_or_default()))
                .bind(i64::from(replaced))
                .bind(i64::from(page.size) + 1)
        };
        let rows = self.rows(query).await?;
        let principals = rows.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(cut(principals, page, |principal| principal.account.key().to_owned()))
    }
}

impl Transaction {
    /// Gives a name to its first holder; `false` when somebody has it, be it the same one.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn insert_principal(&mut self, principal: &Principal) -> Result<bool, StorageError> {
        let done = sqlx::query(INSERT)
            .bind(principal.account.key())
            .bind(principal.account.as_str())
            .bind(clean(&principal.subject))
            .bind(micros(principal.first_seen_at))
            .execute(self.connection())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes that another one came with a name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn note_refused_principal(
        &mut self,
        account: &Account,
        subject: &str,
        at: OffsetDateTime,
    ) -> Result<(), StorageError> {
        sqlx::query(REFUSE)
            .bind(clean(subject))
            .bind(micros(at))
            .bind(account.key())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Forgets whom a name belongs to; `false` when nobody was remembered.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn forget_principal(&mut self, account: &Account) -> Result<bool, StorageError> {
        let done = sqlx::query(DELETE).bind(account.key()).execute(self.connection()).await?;
        Ok(done.rows_affected() > 0)
    }
}

fn parse(row: &AnyRow) -> Result<Principal, StorageError> {
    let key = Columns::of(TABLE, row).text("account_key")?;
    let columns = Columns::named(TABLE, row, &*key);
    let account = columns.parse("account", Account::parse)?;
    if account.key() != key {
        return Err(columns.corrupt("column account_key is not the key of the account"));
    }
    let refused = match columns.optional_text("refused_subject")? {
        Some(subject) => Some((subject, columns.time("refused_at")?)),
        None => None,
    };
    Ok(Principal {
        account,
        subject: columns.text("subject")?,
        first_seen_at: columns.time("first_seen_at")?,
        refused,
    })
}
