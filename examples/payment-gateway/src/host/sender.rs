//! The send side: redeems the ticket of each bill on its way for the credentials of its user, and
//! uploads the bill with them.
//!
//! An upload is repeated under the same key until its outcome is known, so being killed at any moment
//! costs a repetition and nothing else. Credentials live in memory, for one attempt.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::Deserialize;
use sso_client::{
    Client, Redeemed,
    integration::{Again, Call, Followed, HttpsClient, HttpsError, RedeemError, RetryPlan, redeem},
};
use sso_core::clock::Clock;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    agreement::Agreement,
    outbox::{Outbox, State, Waiting},
};
use crate::{
    bill::BillKey,
    upload::{KEY_HEADER, PATH, Receipt, Scheme},
};

/// How many bills are on their way at once.
const AT_ONCE: usize = 8;
/// How often is looked for some that are due.
const LOOK: Duration = Duration::from_millis(250);
/// Characters of what the gateway says about a refusal that are kept.
const SAID_MAX: usize = 300;
/// The pause after a failure of the own database.
const REST: Duration = Duration::from_secs(1);

/// What sending needs. Clones send for the same host.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) outbox: Outbox,
    pub(super) sso: Client,
    pub(super) gateway: HttpsClient,
    pub(super) applications: Vec<String>,
    pub(super) agreement: Followed<Agreement>,
    pub(super) news: Arc<Notify>,
    pub(super) clock: Clock,
}

/// Why an attempt was in vain, and what becomes of the bill.
struct Failed {
    next: Next,
    problem: String,
}

enum Next {
    /// Another attempt after the pause of the plan, or after this if that is longer.
    Retry(Option<Duration>),
    /// The bill stands still.
    SetAside(State),
}

impl Sender {
    /// Runs until `shutdown`; what is on its way then is finished.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut attempts: JoinSet<BillKey> = JoinSet::new();
        let mut under_way = HashSet::new();
        while !shutdown.is_cancelled() {
            self.begin(&mut attempts, &mut under_way).await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                Some(done) = attempts.join_next(), if !attempts.is_empty() => match done {
                    Ok(key) => { under_way.remove(&key); }
                    // Whose task broke off is not known. To try a bill twice at once does no harm.
                    Err(_) => under_way.clear(),
                },
                () = self.news.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        while attempts.join_next().await.is_some() {}
    }

    /// Sets off with as many bills as there is room for.
    async fn begin(&self, attempts: &mut JoinSet<BillKey>, under_way: &mut HashSet<BillKey>) {
        let room = AT_ONCE.saturating_sub(attempts.len());
        if room == 0 {
            return;
        }
        // Those under way are due still.
        let most = u32::try_from(room + under_way.len()).unwrap_or(u32::MAX);
        let due = match self.outbox.due(self.clock.now(), most).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "the database fails");
                tokio::time::sleep(REST).await;
                return;
            }
        };
        let fresh: Vec<_> =
            due.into_iter().filter(|it| !under_way.contains(&it.key)).take(room).collect();
        for waiting in fresh {
            let (sender, key) = (self.clone(), waiting.key);
            under_way.insert(key);
            attempts.spawn(async move {
                sender.attempt(waiting).await;
                key
            });
        }
    }

    async fn attempt(&self, waiting: Waiting) {
        let (key, made) = (waiting.key, waiting.attempts.saturating_add(1));
        let noted = match self.upload(&waiting).await {
            Ok((merchant, answer)) => self.deliver(key, &merchant, &answer).await,
            Err(failed) => self.put_off(key, made, failed).await,
        };
        if let Err(error) = noted {
            // The bill is on its way still, so it is uploaded again, under the same key.
            tracing::error!(%key, %error, "what became of an upload cannot be noted");
            tokio::time::sleep(REST).await;
        }
    }

    async fn upload(&self, waiting: &Waiting) -> Result<(String, Receipt), Failed> {
        let port = self.gateway.port();
        let context = waiting.context.as_ref().map_err(|error| Failed {
            next: Next::SetAside(State::NeedsSignOn),
            problem: error.to_string(),
        })?;
        let redeemed = redeem(&self.sso, &port, &self.applications, context)
            .await
            .map_err(|error| of_redeem(&error))?;
        let call = Call::post(PATH)
            .header(KEY_HEADER, &waiting.key.to_string())
            .body("application/json", waiting.bill.to_json());
        let call = self.with_credentials(call, &redeemed)?;
        let answer = self.gateway.send(call).await.map_err(|error| of_call(&error))?;
        let answer: Receipt = answer.json().map_err(|error| of_call(&error))?;
        Ok((redeemed.credentials.external_user, answer))
    }

    fn with_credentials(&self, call: Call, redeemed: &Redeemed) -> Result<Call, Failed> {
        let credentials = &redeemed.credentials;
        let value = credentials.values.first().ok_or_else(|| Failed {
            next: Next::Retry(None),
            problem: format!("the mapping of {} has no credentials", redeemed.account),
        })?;
        Ok(match self.agreement.current().scheme {
            Scheme::Basic => call.basic(&credentials.external_user, value),
            Scheme::Bearer => call.bearer(value),
        })
    }

    async fn deliver(
        &self,
        key: BillKey,
        merchant: &str,
        answer: &Receipt,
    ) -> Result<(), sqlx::Error> {
        metrics::counter!("payment_host_uploads_total", "outcome" => "done").increment(1);
        let number = &answer.payment_number;
        if self.outbox.uploaded(key, merchant, answer).await? {
            tracing::info!(%key, %number, merchant, "a bill is uploaded");
            return Ok(());
        }
        let problem = format!(
            "the gateway answers with {number}, which is the number of another bill, or this one has \
             another"
        );
        tracing::error!(%key, problem, "a bill is set aside");
        self.outbox.set_aside(key, State::Rejected, &problem).await
    }

    async fn put_off(&self, key: BillKey, made: u32, failed: Failed) -> Result<(), sqlx::Error> {
        metrics::counter!("payment_host_uploads_total", "outcome" => "failed").increment(1);
        let problem = failed.problem;
        let state = match failed.next {
            Next::SetAside(state) => state,
            Next::Retry(least) => match pause(&self.gateway.port().retry, made, least) {
                Some(pause) => {
                    tracing::warn!(%key, made, problem, ?pause, "an upload failed; it is tried again");
                    let due = self.clock.now() + pause;
                    return self.outbox.postpone(key, due, &problem).await;
                }
                None => State::GivenUp,
            },
        };
        tracing::error!(%key, made, problem, state = state.as_str(), "a bill is set aside");
        self.outbox.set_aside(key, state, &problem).await
    }
}

fn pause(plan: &RetryPlan, made: u32, least: Option<Duration>) -> Option<Duration> {
    let pause = plan.pause(made)?;
    Some(least.map_or(pause, |least| pause.max(least.min(plan.most))))
}

/// A ticket that is worth nothing needs the user; everything else waits for whoever repairs it, as
/// long as the ticket lasts.
fn of_redeem(error: &RedeemError) -> Failed {
    let spent = error.ticket_is_spent() || error.again() == Again::Never;
    let reason = error.reason().map(|it| format!("{}: ", it.as_str())).unwrap_or_default();
    Failed {
        next: if spent { Next::SetAside(State::NeedsSignOn) } else { Next::Retry(None) },
        problem: match spent {
            true => format!("{reason}{error}; hand the bill in again with a new sign-on"),
            false => format!("{reason}{error}"),
        },
    }
}

fn of_call(error: &HttpsError) -> Failed {
    let mut words = error.to_string();
    if let HttpsError::Status { answer } = error {
        words.push_str(&said(&answer.body));
    }
    let problem = match error.reason().map(sso_core::tls::TlsReason::as_str) {
        Some(reason) if !words.contains(reason) => format!("{reason}: {words}"),
        _ => words,
    };
    let next = match error.again() {
        Again::Later | Again::AfterRepair => Next::Retry(error.retry_after()),
        Again::Never => Next::SetAside(State::Rejected),
    };
    Failed { next, problem }
}

/// The gateway's own words about its refusal, as far as they can be shown: without them a wrong
/// password and a certificate that was revoked meanwhile look the same.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        message: String,
    }
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else { return String::new() };
    let text = format!(": {}: {}", refusal.error, refusal.message);
    text.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_says_is_shown_as_far_as_it_can_be() {
        let answer = br#"{"error":"BILL_INVALID","message":"number:\nmissing"}"#;
        assert_eq!(said(answer), ": BILL_INVALID: number:missing");
        assert_eq!(said(b"<html>"), "");
        let long = format!(r#"{{"error":"E","message":"{}"}}"#, "x".repeat(1000));
        assert_eq!(said(long.as_bytes()).len(), SAID_MAX);
    }

    #[test]
    fn the_gateway_may_ask_for_a_longer_pause_but_not_for_any() {
        let plan = RetryPlan {
            first: Duration::from_secs(1),
            factor: 2,
            most: Duration::from_secs(60),
            attempts: Some(3),
        };
        let asked = |seconds| pause(&plan, 1, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(30), Some(Duration::from_secs(30)));
        assert_eq!(asked(3600), Some(Duration::from_secs(60)));
        assert!(asked(0) <= Some(Duration::from_secs(1)) && asked(0).is_some());
        assert_eq!(pause(&plan, 3, Some(Duration::from_secs(1))), None);
    }
}
