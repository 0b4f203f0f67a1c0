//! `sso explain`: why something is allowed or denied.

use clap::Args;
use serde::Serialize;
use sso_client::v1::{ExplainRequest, ExplainResponse};
use sso_core::exit::Exit;

use super::{Service, shown::or_dash};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Args)]
#[command(after_help = "\
The checks of the action are gone through as if the account asked; nothing is revealed and
nothing is changed. Actions are named as in the audit. Without one it is what the application
is for: credentials.reveal, credentials.logon or configuration.reveal.
Exit code: 0 when it would be allowed, 77 when it would be denied.

Examples:
  sso explain 'CORP\\asmith' Mainframe
  sso explain 'CORP\\asmith' OrderRouting.Settings configuration.set
  sso explain 'CORP\\host' Batch credentials.logon --external-user JOB001")]
pub(crate) struct ExplainArgs {
    /// Who would ask, DOMAIN\name
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// A noun and a verb, like credentials.reveal
    #[arg(value_name = "ACTION", default_value = "", hide_default_value = true)]
    action: String,
    /// The external user who would log on
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    external_user: String,
}

#[derive(Debug, Serialize)]
struct ExplainDocument {
    allowed: bool,
    account: String,
    application: String,
    action: String,
    groups: Vec<String>,
    groups_unknown: bool,
    steps: Vec<StepDocument>,
    accounts_expected: Vec<String>,
    mapping: Option<MappingDocument>,
}

#[derive(Debug, Serialize)]
struct StepDocument {
    check: String,
    passed: bool,
    detail: String,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct MappingDocument {
    account: String,
    external_user: String,
}

pub(crate) async fn run(
    args: ExplainArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let question = ExplainRequest {
        account: args.account,
        application: args.application,
        action: args.action,
        external_user: args.external_user,
    };
    let document = document(service.connect()?.access().explain(question).await?);
    output.document(&document, |output| show(&document, output))?;
    match document.allowed {
        true => Ok(()),
        false => Err(Failure::Reported(Exit::Denied.code())),
    }
}

fn document(answer: ExplainResponse) -> ExplainDocument {
    let mapped = !answer.mapping_account.is_empty() || !answer.external_user.is_empty();
    let steps = answer.steps.into_iter().map(|step| StepDocument {
        check: step.check,
        passed: step.passed,
        detail: step.detail,
        reason: Some(step.reason).filter(|reason| !reason.is_empty()),
    });
    ExplainDocument {
        allowed: answer.allowed,
        account: answer.account,
        application: answer.application,
        action: answer.action,
        groups: answer.groups,
        groups_unknown: answer.groups_unknown,
        steps: steps.collect(),
        accounts_expected: answer.accounts_expected,
        mapping: mapped.then_some(MappingDocument {
            account: answer.mapping_account,
            external_user: answer.external_user,
        }),
    }
}

fn show(answer: &ExplainDocument, output: &Output) -> Result<(), Failure> {
    let mut groups = or_dash(&answer.groups.join(", "));
    if answer.groups_unknown {
        groups.push_str(" (more may come with its token)");
    }
    let mapping = answer.mapping.as_ref().map_or_else(
        || "-".to_owned(),
        |mapping| format!("{} as {}", or_dash(&mapping.account), or_dash(&mapping.external_user)),
    );
    output.pairs(vec![
        ("account", answer.account.clone()),
        ("groups", groups),
        ("application", answer.application.clone()),
        ("action", answer.action.clone()),
        ("mapping", mapping),
        ("accounts expected", or_dash(&answer.accounts_expected.join("; "))),
    ])?;
    output.line("")?;
    let rows = answer.steps.iter().map(|step| {
        let result = if step.passed { "ok" } else { "FAILED" }.to_owned();
        let reason = step.reason.clone().unwrap_or_else(|| "-".to_owned());
        vec![result, step.check.clone(), or_dash(&step.detail), reason]
    });
    output.table(&["RESULT", "CHECK", "WHY", "REASON"], rows)?;
    output.line("")?;
    output.line(if answer.allowed { "allowed" } else { "denied" })
}

#[cfg(test)]
mod tests {
    use sso_client::v1::ExplainStep;

    use super::*;

    #[test]
    fn json_has_no_empty_texts() {
        let answer = ExplainResponse {
            steps: vec![ExplainStep {
                check: "enabled".into(),
                passed: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        let json = serde_json::to_value(document(answer)).unwrap();
        assert_eq!(json["steps"][0]["reason"], serde_json::Value::Null);
        assert_eq!(json["mapping"], serde_json::Value::Null);
        let mapped = ExplainResponse { external_user: "X1".into(), ..Default::default() };
        let json = serde_json::to_value(document(mapped)).unwrap();
        assert_eq!(json["mapping"]["external_user"], "X1");
    }
}
