//! `sso audit`: the record of every change and every reveal.

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use sso_client::{
    AuditFilter,
    v1::{AuditOutcome, AuditRecord},
};
use sso_core::clock::Clock;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Service,
    shown::{or_dash, time, time_cell},
};
use crate::{cli::parse_duration, failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List records, newest first
    ///
    /// SSO administrators see everything; an application administrator names the application.
    List(ListArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sso audit list --since 24h
  sso audit list --application OrderRouting.Settings --action configuration.
  sso audit list --action configuration.reveal --caller 'CORP\\alice' --output json")]
pub(crate) struct ListArgs {
    /// Only of this application
    #[arg(long, short, value_name = "NAME", default_value = "", hide_default_value = true)]
    application: String,
    /// Only by this caller, DOMAIN\name
    #[arg(long, value_name = "ACCOUNT", default_value = "", hide_default_value = true)]
    caller: String,
    /// Only this action; with a dot at its end every action of the noun (configuration.)
    #[arg(long, value_name = "ACTION", default_value = "", hide_default_value = true)]
    action: String,
    /// Not older than this: a time (2026-11-21T08:00:00Z) or how long ago (30m, 24h, 7d)
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    since: Option<OffsetDateTime>,
    /// Older than this: a time or how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    until: Option<OffsetDateTime>,
    /// Only this outcome
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
    /// At most so many records
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    limit: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Outcome {
    Done,
    Denied,
}

#[derive(Debug, Serialize)]
struct RecordsDocument {
    records: Vec<RecordDocument>,
}

#[derive(Debug, Serialize)]
struct RecordDocument {
    id: String,
    at: Option<String>,
    server: String,
    request_id: String,
    caller: String,
    action: String,
    application: String,
    object: String,
    outcome: &'static str,
    reason: String,
    detail: String,
}

pub(crate) async fn run(
    command: AuditCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let AuditCommand::List(args) = command;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let filter = AuditFilter {
        application: args.application,
        caller: args.caller,
        action: args.action,
        since: args.since,
        until: args.until,
        outcome: args.outcome.map(|outcome| match outcome {
            Outcome::Done => AuditOutcome::Done,
            Outcome::Denied => AuditOutcome::Denied,
        }),
    };
    let records = service.connect()?.audit().list(&filter, limit).await?;
    let rows: Vec<_> = records.iter().map(row).collect();
    let document = RecordsDocument { records: records.into_iter().map(document).collect() };
    output.document(&document, |output| {
        let header = ["AT", "CALLER", "ACTION", "APPLICATION", "OBJECT", "OUTCOME", "DETAIL"];
        output.table(&header, rows)
    })
}

fn row(record: &AuditRecord) -> Vec<String> {
    let outcome = match record.reason.as_str() {
        "" => outcome(record.outcome).to_owned(),
        reason => format!("{} ({reason})", outcome(record.outcome)),
    };
    vec![
        time_cell(record.at.as_ref()),
        or_dash(&record.caller),
        record.action.clone(),
        or_dash(&record.application),
        or_dash(&record.object),
        outcome,
        or_dash(&record.detail),
    ]
}

fn document(record: AuditRecord) -> RecordDocument {
    RecordDocument {
        at: time(record.at.as_ref()),
        outcome: outcome(record.outcome),
        id: record.id,
        server: record.server,
        request_id: record.request_id,
        caller: record.caller,
        action: record.action,
        application: record.application,
        object: record.object,
        reason: record.reason,
        detail: record.detail,
    }
}

fn outcome(outcome: i32) -> &'static str {
    match AuditOutcome::try_from(outcome) {
        Ok(AuditOutcome::Done) => "done",
        Ok(AuditOutcome::Denied) => "denied",
        Ok(AuditOutcome::Unspecified) | Err(_) => "unknown",
    }
}

/// A time in RFC 3339, or how long ago.
fn parse_when(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let wrong = || "write a time like 2026-11-21T08:00:00Z or how long ago, like 24h".to_owned();
    let ago = parse_duration(text).map_err(|_| wrong())?;
    let ago = time::Duration::try_from(ago).map_err(|_| wrong())?;
    Clock::System.now().checked_sub(ago).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_absolute_and_relative() {
        let time = parse_when("2026-11-21T08:00:00+01:00").unwrap();
        assert_eq!(time.unix_timestamp(), 1_795_244_400);
        let ago = Clock::System.now() - parse_when("2h").unwrap();
        assert!((ago - time::Duration::hours(2)).abs() < time::Duration::minutes(1), "{ago}");
        for bad in ["yesterday", "2026-11-21", ""] {
            assert!(parse_when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_denial_shows_its_reason() {
        let record = AuditRecord {
            outcome: AuditOutcome::Denied.into(),
            reason: "NOT_APPLICATION_USER".into(),
            action: "configuration.reveal".into(),
            ..Default::default()
        };
        assert_eq!(row(&record)[5], "denied (NOT_APPLICATION_USER)");
        assert_eq!(document(record).outcome, "denied");
    }
}
