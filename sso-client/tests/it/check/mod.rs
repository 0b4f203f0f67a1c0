//! `sso cert check` and `sso cert show HOST:PORT`, against servers of every kind.

mod clients;
mod command;
mod openssl;
mod pki;
mod servers;
mod strangers;
mod trust;

use std::{net::SocketAddr, time::Duration};

use sso_client::certificates::probe::{Check, Identity, Outcome, Report, StepKind, Verdict};
use sso_core::tls::{TlsReason, TrustSettings};

use self::pki::{Authority, Issued};

/// Enough for every handshake on a busy machine, and the bound of what never answers.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A check of the server at `address` as a client that trusts `authority` and nothing else.
fn check_of(address: SocketAddr, authority: &Authority) -> Check {
    Check {
        target: address.to_string().parse().unwrap(),
        name: None,
        trust: TrustSettings::new(authority.file()),
        identity: None,
        timeout: TIMEOUT,
    }
}

fn identity(issued: &Issued) -> Option<Identity> {
    Some(Identity {
        certificate: issued.certificate_file.clone(),
        key: issued.key_file.clone(),
        key_passphrase_file: None,
    })
}

async fn run(check: &Check) -> Report {
    sso_core::tls::install_provider();
    check.run().await.unwrap()
}

fn outcome(report: &Report, step: StepKind) -> Option<Outcome> {
    report.step(step).map(|step| step.outcome)
}

fn words(report: &Report, step: StepKind) -> &str {
    &report.step(step).unwrap_or_else(|| panic!("no {step:?} in {:#?}", report.steps)).words
}

/// The server is refused for `reason`, which stands at `step`.
fn assert_refused(report: &Report, step: StepKind, reason: TlsReason) {
    assert_eq!(report.verdict, Verdict::Refused, "{:#?}", report.steps);
    assert_eq!(report.reason, Some(reason), "{:#?}", report.steps);
    let found = report.step(step).unwrap_or_else(|| panic!("no {step:?} in {:#?}", report.steps));
    assert_eq!(
        (found.outcome, found.reason),
        (Outcome::Failed, Some(reason)),
        "{:#?}",
        report.steps
    );
    assert!(found.advice.is_some(), "{found:?}");
}
