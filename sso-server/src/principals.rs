//! The rules of principals: a name belongs to the first one who proves to have it, by what the identity
//! source calls them for ever (ESSO.md 14.3, row 28). Somebody else with the same name is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sso_core::clock::Clock;
use sso_proto::Reason;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

use crate::{
    access::{Access, Action, Call},
    audit::{Audit, Subject},
    changes::{Change, Changes, News},
    error::Error,
    model::{Account, Caller, Page, PageRequest, Principal},
    storage::Storage,
};

/// Names remembered in memory at the most; beyond it the database is asked.
const REMEMBERED: usize = 100_000;

/// The rules of principals.
#[derive(Clone, Debug)]
pub struct Principals {
    access: Arc<Access>,
    audit: Audit,
    storage: Storage,
    changes: Changes,
    clock: Clock,
    known: Arc<Mutex<Known>>,
}

/// What this server remembers, until it hears that somebody may have been forgotten.
#[derive(Debug)]
struct Known {
    /// Canonical account and the subject it belongs to.
    subjects: HashMap<String, String>,
    /// Rises with every forgetting, so that nothing is remembered that was read before it.
    epoch: u64,
    news: Receiver<Arc<News>>,
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
        let known = Known { subjects: HashMap::new(), epoch: 0, news: changes.subscribe() };
        Self { access, audit, storage, changes, clock, known: Arc::new(Mutex::new(known)) }
    }

    /// Lets the first holder of a name pass, and refuses anybody else. A caller whose source has no
    /// such lasting name passes.
    ///
    /// # Errors
    /// `PRINCIPAL_REPLACED`; `DATABASE_UNAVAILABLE`, so that nobody passes unseen.
    pub async fn confirm(&self, caller: &Caller) -> Result<(), Error> {
        let Some(subject) = caller.proof.subject() else { return Ok(()) };
        let (remembered, epoch) = self.remembers(&caller.account, subject);
        if remembered {
            return Ok(());
        }
        let found = match self.storage.principal(&caller.account).await? {
            Some(principal) => principal,
            None => self.first(&caller.account, subject).await?,
        };
        if found.subject == subject {
            self.remember(&caller.account, subject, epoch);
            return Ok(());
        }
        self.note(&found, subject).await?;
        Err(replaced(&caller.account).for_administrators(format!(
            "the name belongs to {} since {}; it was {subject} who came",
            found.subject, found.first_seen_at
        )))
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
        transaction.insert_change(Change::System, self.clock.now()).await?;
        transaction.commit().await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).forget();
        self.changes.wake();
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

    /// Whether the name is known to belong to this one, and the epoch to remember under otherwise.
    fn remembers(&self, account: &Account, subject: &str) -> (bool, u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.take_in_news();
        let found = known.subjects.get(account.key()).is_some_and(|known| known == subject);
        (found, known.epoch)
    }

    fn remember(&self, account: &Account, subject: &str, epoch: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.epoch == epoch && known.subjects.len() < REMEMBERED {
            known.subjects.insert(account.key().to_owned(), subject.to_owned());
        }
    }
}

impl Known {
    fn forget(&mut self) {
        self.subjects.clear();
        self.epoch += 1;
    }

    fn take_in_news(&mut self) {
        loop {
            match self.news.try_recv() {
                Ok(news) if news.system || news.everything => self.forget(),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => self.forget(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

fn replaced(account: &Account) -> Error {
    let message = format!(
        "the name {account} belonged to somebody else before; an SSO administrator checks its roles and mappings, then runs `sso principal forget`"
    );
    Error::new(Reason::PrincipalReplaced, message)
}
