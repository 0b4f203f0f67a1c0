//! `sso cert show HOST:PORT`: the certificates that a running server shows.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use sso_client::certificates::{
    Tree,
    probe::{Agreement, Look, LookError, Target},
};
use sso_core::clock::Clock;

use super::shown;
use crate::{failure::Failure, output::Output};

#[derive(Serialize)]
struct Shown<'l> {
    address: String,
    agreement: &'l Option<Agreement>,
    asks_for_certificate: bool,
    #[serde(flatten)]
    chain: &'l Tree,
}

/// Shows what the server at `target` has, whether it is trusted or not: below `authorities`, which it
/// does not send, and with what `mark` notes.
pub(super) async fn show(
    target: &Target,
    timeout: Duration,
    authorities: Vec<CertificateDer<'static>>,
    mark: impl FnOnce(&mut Tree) -> Result<(), Failure>,
    output: &Output,
) -> Result<(), Failure> {
    let look = Look::at(target, None, timeout).await.map_err(failure)?;
    let certificates: Vec<_> = look.certificates.iter().cloned().chain(authorities).collect();
    let mut tree = Tree::build(&certificates);
    let marked = mark(&mut tree);
    let shown = Shown {
        address: target.to_string(),
        agreement: &look.agreement,
        asks_for_certificate: look.asks_for_certificate,
        chain: &tree,
    };
    output.document(&shown, |output| {
        let mut lines = shown::lines(&tree, Clock::System.now()).into_iter();
        lines.try_for_each(|line| output.line(&line))
    })?;
    let asks = match look.asks_for_certificate {
        true => "asks for a client certificate",
        false => "does not ask for a client certificate",
    };
    output.note(&format!(
        "{target} {asks}; whether a client would trust it: sso cert check {target}"
    ));
    marked
}

fn failure(error: LookError) -> Failure {
    match error.unreachable {
        true => Failure::Unavailable(error.to_string()),
        false => Failure::Refused { message: error.to_string(), hint: error.advice },
    }
}
