//! `sso ticket`: issue, redeem, inspect.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use serde::Serialize;
use sso_client::{IssuedTicket, v1::InspectTicketResponse};

use super::{
    Service, credentials,
    shown::{or_dash, time, time_cell, yes},
};
use crate::{failure::Failure, output::Output, values::read_secret};

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Print a ticket for yourself, or for the end user of a token
    Issue(IssueArgs),
    /// Redeem a ticket for the credentials of the one it was issued to
    Redeem(RedeemArgs),
    /// Show what a ticket says, without redeeming it
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The ticket alone is printed on standard output. Whoever has it may redeem it where they
administer an application: hand it on as you would a password.

Examples:
  sso ticket issue
  sso ticket issue --audience Mainframe > ticket
  sso --profile host ticket issue --user-token-file token.jwt")]
pub(crate) struct IssueArgs {
    /// Only this application takes the ticket
    #[arg(long, value_name = "APP")]
    audience: Option<String>,
    /// File with the token of an end user, for trusted hosts; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    user_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The sender is who the message with the ticket says it comes from: the ticket must have been
issued to them. The word of a trusted host is taken for it; everybody else's sender is
themselves. Without --sender the ticket is redeemed unvalidated, where that is allowed.
The table shows values of masked fields only with --reveal; JSON has every value.

Examples:
  sso ticket redeem Mainframe --sender 'CORP\\asmith' --output json < ticket
  sso ticket redeem Mainframe --ticket ticket --reveal")]
pub(crate) struct RedeemArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// File with the ticket; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, default_value = "-")]
    ticket: PathBuf,
    /// Who the message says it comes from, DOMAIN\name
    #[arg(long, value_name = "ACCOUNT")]
    sender: Option<String>,
    /// Read the database, whatever the server has cached
    #[arg(long)]
    refresh: bool,
    /// Show values of masked fields too
    #[arg(long)]
    reveal: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sso ticket issue | sso ticket inspect
  sso ticket inspect --ticket ticket --output json")]
pub(crate) struct InspectArgs {
    /// File with the ticket; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, default_value = "-")]
    ticket: PathBuf,
}

pub(crate) async fn run(
    command: TicketCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        TicketCommand::Issue(args) => issue(args, service, output).await,
        TicketCommand::Redeem(args) => redeem(args, service, output).await,
        TicketCommand::Inspect(args) => inspect(args, service, output).await,
    }
}

/// The one place where a ticket becomes plain: the user asked for it.
#[derive(Serialize)]
struct TicketDocument<'t> {
    ticket: &'t str,
    account: &'t str,
    id: &'t str,
    issued_at: Option<String>,
    expires_at: Option<String>,
}

impl<'t> TicketDocument<'t> {
    fn new(issued: &'t IssuedTicket) -> Self {
        Self {
            // Expose: onto standard output, as asked.
            ticket: issued.ticket.expose(),
            account: &issued.account,
            id: &issued.id,
            issued_at: time(issued.issued_at.as_ref()),
            expires_at: time(issued.expires_at.as_ref()),
        }
    }
}

async fn issue(args: IssueArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let token =
        args.user_token_file.as_deref().map(|file| read_secret(file, "token")).transpose()?;
    let tickets = service.connect()?.tickets();
    let issued = tickets.issue(args.audience.as_deref(), token.as_ref()).await?;
    let document = TicketDocument::new(&issued);
    output.document(&document, |output| {
        let until = document.expires_at.as_deref().unwrap_or("it is revoked");
        output.note(&format!("issued to {}, good until {until}", document.account));
        output.line(document.ticket)
    })
}

async fn redeem(args: RedeemArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let ticket = read_secret(&args.ticket, "ticket")?;
    let client = service.connect()?;
    let redeemed = client
        .tickets()
        .redeem(&args.application, &ticket, args.sender.as_deref(), args.refresh)
        .await?;
    output.note(&format!("the ticket {} was issued to {}", redeemed.ticket_id, redeemed.account));
    credentials::show(&redeemed.credentials, &client, args.reveal, output).await
}

#[derive(Debug, Serialize)]
struct InspectDocument {
    id: String,
    account: String,
    server: String,
    issued_at: Option<String>,
    expires_at: Option<String>,
    expired: bool,
    /// The application it was issued for; absent for any.
    audience: Option<String>,
    validation_required: bool,
    generation: u32,
}

async fn inspect(args: InspectArgs, service: &Service<'_>, output: &Output) -> Result<(), Failure> {
    let ticket = read_secret(&args.ticket, "ticket")?;
    let answer = service.connect()?.tickets().inspect(&ticket).await?;
    let pairs = pairs(&answer);
    let document = InspectDocument {
        issued_at: time(answer.issued_at.as_ref()),
        expires_at: time(answer.expires_at.as_ref()),
        id: answer.id,
        account: answer.account,
        server: answer.server,
        expired: answer.expired,
        audience: Some(answer.application).filter(|name| !name.is_empty()),
        validation_required: answer.validation_required,
        generation: answer.generation,
    };
    output.document(&document, |output| output.pairs(pairs))
}

fn pairs(ticket: &InspectTicketResponse) -> Vec<(&'static str, String)> {
    let expired = if ticket.expired { " (expired)" } else { "" };
    let audience = match ticket.application.as_str() {
        "" => "any application".to_owned(),
        name => name.to_owned(),
    };
    vec![
        ("id", or_dash(&ticket.id)),
        ("issued to", ticket.account.clone()),
        ("by server", or_dash(&ticket.server)),
        ("issued", time_cell(ticket.issued_at.as_ref())),
        ("expires", format!("{}{expired}", time_cell(ticket.expires_at.as_ref()))),
        ("for", audience),
        ("sender must be validated", yes(ticket.validation_required)),
        ("generation", ticket.generation.to_string()),
    ]
}
