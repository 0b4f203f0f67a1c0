//! `sso cert check`: would a client be served by a server, and if not, why.

use clap::Args;
use rustls::pki_types::ServerName;
use sso_client::{
    Environment, Profile,
    certificates::probe::{Check, Identity, Outcome, Report, Step, Target, UsedList, Verdict},
};
use sso_core::{
    clock::Clock,
    exit::Exit,
    tls::{RevocationPolicy, TlsVersion},
};

use super::shown;
use crate::{
    commands::Service,
    failure::Failure,
    output::{Output, escape},
};

/// Time for each look-up, connection and handshake, when nothing else is said.
pub(super) const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

const EXAMPLES: &str = "\
What a client with these settings meets is decided by the code that every client of the product uses. Who
it is and whom it trusts comes from the options and the profile, as for every command:
  sso cert check sso-1.corp.example:7400
  sso --profile gateway cert check pay.example:443
  sso cert check pay.example:443 --ca gateway-ca.crt --cert host.crt --key host.key \\
      --crl http://pki.pay.example/ca.crl --revocation hard-fail
  sso cert check 10.0.0.7:7400 --name sso-1.corp.example -o json

Up to five connections are made one after the other, without any data; those that show no certificate
stand in the log of a server that requires one. The client certificate is shown only to a server that is
trusted. No request is made: a web server may still refuse a client in its answer to one.
--timeout is for each look-up, connection and handshake.

Exit codes: 0 a client is served, 1 one side refuses the other, 69 unreachable or silent, 2 usage,
64 own files or settings not usable.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// The server
    #[arg(value_name = "HOST:PORT")]
    target: Target,
    /// Name that the certificate has to have, where it is not the host
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<ServerName<'static>>,
    /// What becomes of certificates whose revocation cannot be determined: hard-fail, soft-fail or off
    #[arg(long, value_name = "POLICY")]
    revocation: Option<RevocationPolicy>,
    /// Oldest version of TLS that the client speaks: 1.3 or 1.2
    #[arg(long, value_name = "VERSION")]
    minimum_version: Option<TlsVersion>,
}

pub(super) fn parse_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| "neither a name nor an address".to_owned())
}

pub(super) async fn run(
    args: CheckArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<u8, Failure> {
    let overrides = service.global.overrides();
    let profile = Profile::resolve_check(&args.target, &overrides, &Environment::read())?;
    let mut trust = profile.trust();
    trust.revocation = args.revocation.or(trust.revocation);
    trust.minimum_version = args.minimum_version.unwrap_or(trust.minimum_version);
    let identity = match (profile.cert, profile.key) {
        (Some(certificate), Some(key)) => {
            let key_passphrase_file = profile.key_passphrase_file;
            Some(Identity { certificate, key, key_passphrase_file })
        }
        _ => None,
    };
    let check = Check {
        target: args.target,
        name: args.name,
        trust,
        identity,
        timeout: service.global.timeout.unwrap_or(TIMEOUT),
    };
    let report = check.run().await.map_err(|error| Failure::Settings(error.to_string()))?;
    output.document(&report, |output| print(&report, output))?;
    Ok(exit(report.verdict).code())
}

fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Served => Exit::Ok,
        Verdict::Refused => Exit::Refused,
        Verdict::Unreachable => Exit::Unavailable,
    }
}

fn print(report: &Report, output: &Output) -> Result<(), Failure> {
    output.table(&["STEP", "RESULT", "WHAT WAS SEEN"], report.steps.iter().flat_map(rows))?;
    if !report.chain.certificates.is_empty() {
        output.line("")?;
        for line in shown::lines(&report.chain, Clock::System.now()) {
            output.line(&line)?;
        }
    }
    if !report.lists.is_empty() {
        output.line("")?;
        let header = ["REVOCATION LIST", "OF", "ISSUED", "VALID UNTIL", "PROBLEM"];
        output.table(&header, report.lists.iter().map(list_row))?;
    }
    output.line("")?;
    output.line(&escape(&conclusion(report)))
}

/// The step, and below it what to do.
fn rows(step: &Step) -> Vec<Vec<String>> {
    let result = match step.outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "WARNING",
        Outcome::Failed => "FAILED",
        Outcome::NotDone => "-",
    };
    let words = match step.reason {
        Some(reason) => format!("{reason}: {}", step.words),
        None => step.words.clone(),
    };
    let mut rows = vec![vec![step.step.as_str().to_owned(), result.to_owned(), words]];
    if let Some(advice) = &step.advice {
        rows.push(vec![String::new(), String::new(), format!("-> {advice}")]);
    }
    rows
}

fn list_row(list: &UsedList) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        list.source.clone(),
        or_dash(list.issuer.clone()),
        or_dash(list.this_update.map(shown::time_text)),
        or_dash(list.next_update.map(shown::time_text)),
        or_dash(list.problem.clone()),
    ]
}

fn conclusion(report: &Report) -> String {
    let what = match report.verdict {
        Verdict::Served => "a client with these settings is served",
        Verdict::Refused => "a client with these settings is NOT served",
        Verdict::Unreachable => "there is no talking with the server now",
    };
    match report.reason {
        Some(reason) => format!("{}: {what} ({reason})", report.address),
        None => format!("{}: {what}", report.address),
    }
}
