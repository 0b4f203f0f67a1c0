//! `sso principal`: who had which account name first.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Service, confirm,
    shown::{or_dash, time, time_cell},
};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum PrincipalCommand {
    /// List the accounts whose source names them for ever, and who came with their name since
    #[command(after_help = "\
A name belongs to the first one who proves to have it, by the subject of a token or the number of a
local user. Somebody else with the same name is refused with PRINCIPAL_REPLACED.

Examples:
  sso principal list --replaced")]
    List {
        /// Only those whose name somebody else came with
        #[arg(long)]
        replaced: bool,
    },
    /// Forget who had a name, so that the next one who proves to have it keeps it
    #[command(after_help = "\
Look at the roles and mappings of the account first: whoever comes next inherits them.

Examples:
  sso mapping list --account 'CORP\\ann'
  sso principal forget 'CORP\\ann'")]
    Forget(ForgetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// DOMAIN\name
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// Do not ask on a terminal
    #[arg(long, short = 'y')]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct PrincipalsDocument {
    principals: Vec<PrincipalDocument>,
}

#[derive(Debug, Serialize)]
struct PrincipalDocument {
    account: String,
    subject: String,
    first_seen_at: Option<String>,
    refused_subject: Option<String>,
    refused_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct ForgottenDocument {
    account: String,
    existed: bool,
}

pub(crate) async fn run(
    command: PrincipalCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        PrincipalCommand::List { replaced } => list(replaced, service, output).await,
        PrincipalCommand::Forget(args) => forget(args, service, output).await,
    }
}

async fn list(replaced: bool, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let principals = service.connect()?.principals().list(replaced).await?;
    let row = |principal: &sso_client::v1::Principal| {
        vec![
            principal.account.clone(),
            principal.subject.clone(),
            time_cell(principal.first_seen_at.as_ref()),
            or_dash(&principal.refused_subject),
            time_cell(principal.refused_at.as_ref()),
        ]
    };
    let rows: Vec<_> = principals.iter().map(row).collect();
    let document = |principal: sso_client::v1::Principal| PrincipalDocument {
        first_seen_at: time(principal.first_seen_at.as_ref()),
        refused_at: time(principal.refused_at.as_ref()),
        refused_subject: Some(principal.refused_subject).filter(|subject| !subject.is_empty()),
        account: principal.account,
        subject: principal.subject,
    };
    let principals = principals.into_iter().map(document).collect();
    output.document(&PrincipalsDocument { principals }, |output| {
        output.table(&["ACCOUNT", "SUBJECT", "FIRST SEEN", "REFUSED SINCE", "AT"], rows)
    })
}

async fn forget(args: ForgetArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let question = format!("Forget who had the name {}?", args.account);
    confirm(&question, args.yes)?;
    let existed = service.connect()?.principals().forget(&args.account).await?;
    let said = match existed {
        true => format!("{} belongs to nobody now", args.account),
        false => format!("nobody was remembered under {}", args.account),
    };
    let document = ForgottenDocument { account: args.account, existed };
    output.document(&document, |output| output.line(&said))
}
