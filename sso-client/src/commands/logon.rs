//! `sso logon`: who an external user is here.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;
use sso_client::{Logon, LogonRequest, Refusal, SecretText};

use super::{Service, shown::time};
use crate::{
    failure::Failure,
    output::Output,
    values::{prompt_fields, read_list},
};

#[derive(Debug, Args)]
#[command(after_help = "\
You must administer the application. Where it validates passwords the external user's
credentials are compared with those stored: a JSON array of the values from field 1 on.
Ticket and assertion stand for the account, whoever has them; JSON has both, the table only
with --reveal.

Examples:
  sso logon Batch JOB001 --values - < credentials.json
  sso logon Batch JOB001 --prompt --audience https://ledger.example --output json")]
pub(crate) struct LogonArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// Name in the external system
    #[arg(value_name = "EXTERNAL_USER")]
    external_user: String,
    /// File with a JSON array of the credentials given; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    values: Option<PathBuf>,
    /// Ask for the credentials on the terminal without showing them
    #[arg(long, conflicts_with = "values")]
    prompt: bool,
    /// Who the assertion is for [default: the first audience in the server's settings]
    #[arg(long, value_name = "AUDIENCE", default_value = "", hide_default_value = true)]
    audience: String,
    /// Read the database, whatever the server has cached
    #[arg(long)]
    refresh: bool,
    /// Show ticket and assertion
    #[arg(long)]
    reveal: bool,
}

/// The one place where ticket and assertion become plain: the user asked for them.
#[derive(Serialize)]
struct LogonDocument<'l> {
    application: &'l str,
    external_user: &'l str,
    account: &'l str,
    ticket: Option<&'l str>,
    ticket_expires_at: Option<String>,
    assertion: Option<&'l str>,
}

impl<'l> LogonDocument<'l> {
    fn new(request: &'l LogonRequest, logon: &'l Logon) -> Self {
        Self {
            application: &request.application,
            external_user: &request.external_user,
            account: &logon.account,
            // Expose: onto standard output, as asked; the same for the assertion.
            ticket: logon.ticket.as_ref().map(SecretText::expose),
            ticket_expires_at: time(logon.ticket_expires_at.as_ref()),
            assertion: logon.assertion.as_ref().map(SecretText::expose),
        }
    }
}

pub(crate) async fn run(
    args: LogonArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let values = args.values.as_deref().map(read_list).transpose()?;
    let client = service.connect()?;
    let credentials = match args.prompt {
        true => Some(prompt_fields(&client.applications().show(&args.application).await?.fields)?),
        false => values,
    };
    let request = LogonRequest {
        application: args.application,
        external_user: args.external_user,
        credentials,
        refresh: args.refresh,
        assertion_audience: args.audience,
    };
    let logon = client.lookup().logon_external_user(&request).await;
    let logon = logon.inspect_err(|error| {
        let mismatch = |refusal: &Refusal| refusal.reason == "CREDENTIALS_MISMATCH";
        // The answer of the server is the same for whatever is wrong.
        if request.credentials.is_none() && error.refusal().is_some_and(mismatch) {
            output.warn(None, "no credentials were given: give --values - or --prompt");
        }
    })?;
    let document = LogonDocument::new(&request, &logon);
    output.document(&document, |output| output.pairs(pairs(&document, args.reveal)))
}

fn pairs(logon: &LogonDocument<'_>, reveal: bool) -> Vec<(&'static str, String)> {
    let secret = |text: Option<&str>| match (text, reveal) {
        (None, _) => "-".to_owned(),
        (Some(text), true) => text.to_owned(),
        (Some(_), false) => "(--reveal shows it)".to_owned(),
    };
    let mut pairs = vec![
        ("application", logon.application.to_owned()),
        ("external user", logon.external_user.to_owned()),
        ("account", logon.account.to_owned()),
        ("ticket", secret(logon.ticket)),
    ];
    if let Some(until) = &logon.ticket_expires_at {
        pairs.push(("ticket expires", until.clone()));
    }
    pairs.push(("assertion", secret(logon.assertion)));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shown_on_request() {
        let request = LogonRequest { application: "Batch".into(), ..LogonRequest::default() };
        let logon = Logon {
            account: r"D\svc".into(),
            ticket: Some(SecretText::new("sso1.x".into())),
            ticket_expires_at: None,
            assertion: None,
        };
        let document = LogonDocument::new(&request, &logon);
        assert!(pairs(&document, false).contains(&("ticket", "(--reveal shows it)".into())));
        assert!(pairs(&document, true).contains(&("ticket", "sso1.x".into())));
        assert!(pairs(&document, true).contains(&("assertion", "-".into())));
    }
}
