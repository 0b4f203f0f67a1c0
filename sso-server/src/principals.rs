//! The rules of principals: a name belongs to the first one who proves to have it, by what the identity
//! source calls them for ever (ESSO.md 14.3, row 28). Somebody else with the same name is refused.

use std::sync::Arc;

use sso_core::clock::Clock;
use sso_proto::Reason;

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    cache::{Store, Weigh},
    changes::{Change, Changes, Tick},
    error::Error,
    model::{Account, Caller, Page, PageRequest, Principal},
    storage::Storage,
};

/// Names remembered in memory at the most; beyond it the database is asked.
const REMEMBERED: u64 = 100_000;

/// The rules of principals.
#[derive(Clone, Debug)]
pub struct Principals {
    access: Arc<Access>,
    audit: Audit,
    storage: Storage,
    changes: Changes,
    clock: Clock,
    known: Arc<Store<Known>>,
}

/// Whom a name belongs to, as it was read under this tick. It is served while it stands, as everything
/// that is remembered (see [`crate::cache`]).
#[derive(Clone, Debug)]
struct Known {
    /// The canonical account, and the subject it belongs to.
    of: Arc<(Box<str>, Box<str>)>,
    read: Tick,
}

impl Weigh for Known {
    fn weight(&self) -> u64 {
        1
    }
}

impl Principals {
    /// Principals kept in this storage.
    #[must_use]
    pub fn new(
        access: Arc<Access>,
        audit: Audit,
        storage: Storage,
        changes: Changes,
        clock: Clock,
    ) -> Self {
        let known = Arc::new(Store::new(REMEMBERED, 1));
        Self { access, audit, storage, changes, clock, known }
    }

    /// Lets the first holder of a name pass, and refuses anybody else. A caller whose source has no
    /// such lasting name passes.
    ///
    /// # Errors
    /// `PRINCIPAL_REPLACED`; `DATABASE_UNAVAILABLE`, so that nobody passes unseen.
    pub async fn confirm(&self, caller: &Caller) -> Result<(), Error> {
        let Some(subject) = caller.proof.subject() else { return Ok(()) };
        if self.remembers(&caller.account, subject) {
            return Ok(());
        }
        let tick = self.changes.ticks().now();
        let found = match self.storage.principal(&caller.account).await? {
            Some(principal) => principal,
            None => self.first(&caller.account, subject).await?,
        };
        if found.subject == subject {
            self.remember(&caller.account, subject, tick);
            return Ok(());
        }
        self.note(&found, subject).await?;
        Err(replaced(&caller.account).for_administrators(format!(
            "the name belongs to {} since {}; it was {subject} who came",
            found.subject, found.first_seen_at
        )))
    }

    /// Whether the name belongs to this one now. Nobody is given it by asking.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`.
    pub async fn is(&self, account: &Account, subject: &str) -> Result<bool, Error> {
        if self.remembers(account, subject) {
            return Ok(true);
        }
        let tick = self.changes.ticks().now();
        // Apart, so that it takes no room where nobody has to be looked for.
        let found = Box::pin(self.storage.principal(account)).await?;
        let is = found.is_some_and(|principal| principal.subject == subject);
        if is {
            self.remember(account, subject, tick);
        }
        Ok(is)
    }

    /// Who had which name first, by account.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`.
    pub async fn list(
        &self,
        call: &Call,
        replaced: bool,
        page: PageRequest,
    ) -> Result<Page<Principal>, Error> {
        self.access.require(call, Action::PrincipalList)?;
        Ok(self.storage.principals(replaced, &page).await?)
    }

    /// Forgets whom a name belongs to, on every server within one poll; `false` where nobody was
    /// remembered.
    ///
    /// # Errors
    /// `NOT_SSO_ADMINISTRATOR`.
    pub async fn forget(&self, call: &Call, account: &Account) -> Result<bool, Error> {
        self.access.require(call, Action::PrincipalForget)?;
        let mut transaction = self.storage.begin().await?;
        // What this server remembers of the administrators may be older than what the database says.
        Access::held(&mut transaction).await?.require(call, Action::PrincipalForget)?;
        if !transaction.forget_principal(account).await? {
            return Ok(false);
        }
        let subject = Subject { object: account.as_str(), ..Subject::default() };
        self.audit.record(&mut transaction, call, Action::PrincipalForget, subject).await?;
        self.changes.commit(transaction, Some(call), Change::System, self.clock.now()).await?;
        Ok(true)
    }

    /// Gives the name to this one, unless another server was faster; who has it then.
    async fn first(&self, account: &Account, subject: &str) -> Result<Principal, Error> {
        let principal = Principal {
            account: account.clone(),
            subject: subject.to_owned(),
            first_seen_at: self.clock.now(),
            refused: None,
        };
        let mut transaction = self.storage.begin().await?;
        if transaction.insert_principal(&principal).await? {
            transaction.commit().await?;
            tracing::info!(%account, subject, "a principal is seen for the first time");
            return Ok(principal);
        }
        transaction.rollback().await?;
        let found = self.storage.principal(account).await?;
        found.ok_or_else(|| replaced(account))
    }

    /// Notes who came with the name of another, once for each of them.
    async fn note(&self, found: &Principal, subject: &str) -> Result<(), Error> {
        if found.refused.as_ref().is_some_and(|(known, _)| known == subject) {
            return Ok(());
        }
        let mut transaction = self.storage.begin().await?;
        transaction.note_refused_principal(&found.account, subject, self.clock.now()).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Whether the name is known to belong to this one.
    fn remembers(&self, account: &Account, subject: &str) -> bool {
        let known = self.known.find(self.known.hash(account.key()));
        known.is_some_and(|Known { of, read }| {
            let ticks = self.changes.ticks();
            (&*of.0, &*of.1) == (account.key(), subject)
                && ticks.system_stands(read)
                && ticks.are_fresh(self.clock.instant())
        })
    }

    fn remember(&self, account: &Account, subject: &str, read: Tick) {
        let of = Arc::new((account.key().into(), subject.into()));
        self.known.keep(self.known.hash(account.key()), Known { of, read });
    }
}

fn replaced(account: &Account) -> Error {
    let message = format!(
        "the name {account} belonged to somebody else before; an SSO administrator checks its roles and mappings, then runs `sso principal forget`"
    );
    Error::new(Reason::PrincipalReplaced, message)
}
