//! `sso cert revoke` and `sso cert crl`: which certificates are no longer good, and the list that says so.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use sso_client::certificates::{EarlierList, Ledger, Revocation, RevocationReason, Revoked};
use sso_core::clock::Clock;
use time::{Duration, OffsetDateTime};

use super::{authority::open_authority, shown::time_text};
use crate::{commands::confirm, failure::Failure, output::Output};

const REVOKE_EXAMPLES: &str = "\
Examples:
  sso cert revoke --ca issuing bills.crt --reason key-compromise
  sso cert revoke --ca issuing 5e8c0d6a2c734661713aa7b63ea01a6d --reason superseded --yes
Nobody knows of it before the next list: sso cert crl, then put it where the settings look for it.";

#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
pub(super) struct RevokeArgs {
    /// Folder of the authority that issued it
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// File of the certificate, or its serial number or thumbprint (8 digits or more of the beginning)
    #[arg(value_name = "CERTIFICATE")]
    certificate: String,
    /// Why, as the list says it to everybody
    #[arg(long, value_enum, default_value_t, value_name = "REASON")]
    reason: RevocationReason,
    /// Revoke without asking
    #[arg(long)]
    yes: bool,
}

const CRL_EXAMPLES: &str = "\
Examples:
  sso cert crl --ca issuing --out /srv/pki/issuing.crl
  sso cert crl --ca issuing --out /srv/pki/issuing.crl --hours 12 --der
A list is used until its next update: make a new one well before, for example daily with the default of
7 days, and after every sso cert revoke. An older list of the same authority is replaced at once.
Root and intermediate authorities need a list each.";

#[derive(Debug, Args)]
#[command(after_help = CRL_EXAMPLES)]
pub(super) struct CrlArgs {
    /// Folder with ca.crt and ca.key
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// File for the list; an older list of this authority there is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Days until the next update
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// Hours until the next update, in place of days
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..=8760), conflicts_with = "days")]
    hours: Option<u16>,
    /// Write DER in place of PEM
    #[arg(long)]
    der: bool,
    /// Overwrite the file, whatever is in it
    #[arg(long)]
    replace: bool,
    /// Private file with the passphrase of ca.key
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct RevokedShown<'r> {
    #[serde(flatten)]
    revoked: &'r Revoked,
    /// It was revoked before, and nothing was changed.
    before: bool,
}

#[derive(Serialize)]
struct ListShown<'l> {
    file: &'l Path,
    number: u64,
    #[serde(with = "time::serde::rfc3339")]
    this_update: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    next_update: OffsetDateTime,
    revoked: usize,
}

pub(super) fn revoke(args: &RevokeArgs, output: &Output) -> Result<(), Failure> {
    let ledger = Ledger::of(&args.ca);
    let file = Path::new(&args.certificate);
    let certificate = if file.is_file() {
        ledger.read(file)?
    } else {
        let found = ledger.find(&args.certificate)?;
        for error in ledger.damaged()? {
            output.warn(None, &format!("among the issued certificates, {error}"));
        }
        found
    };
    let what = format!("{}, serial number {}", certificate.subject, certificate.serial);
    confirm(&format!("Revoke {what} for good?"), args.yes)?;
    let done = ledger.revoke(&certificate, args.reason, Clock::System.now())?;
    let (revoked, before) = match &done {
        Revocation::Done(revoked) => (revoked, false),
        Revocation::Before(revoked) => (revoked, true),
    };
    if before && revoked.reason != args.reason {
        let text = format!("it was revoked before; the reason stays {}", word(revoked.reason));
        output.warn(None, &text);
    }
    output.document(&RevokedShown { revoked, before }, |output| {
        output.pairs(vec![
            ("revoked", revoked.name.clone()),
            ("serial", revoked.serial.clone()),
            ("since", time_text(revoked.time)),
            ("reason", word(revoked.reason)),
        ])
    })?;
    if before {
        output.note("it was revoked before; nothing was changed");
    } else {
        output.note("nobody knows of it before the next list: sso cert crl");
    }
    Ok(())
}

pub(super) fn list(args: &CrlArgs, output: &Output) -> Result<(), Failure> {
    let authority = open_authority(&args.ca, args.ca_passphrase_file.as_deref())?;
    let earlier = earlier_list(args)?;
    let lifetime = match args.hours {
        Some(hours) => Duration::hours(hours.into()),
        None => Duration::days(args.days.into()),
    };
    let (number, revoked) = Ledger::of(&args.ca).next_list(earlier.as_ref())?;
    let list = authority.revocation_list(number, &revoked, lifetime, Clock::System.now())?;
    match args.der {
        true => list.write_der(&args.out)?,
        false => list.write(&args.out)?,
    }
    let shown = ListShown {
        file: &args.out,
        number: list.number,
        this_update: list.this_update,
        next_update: list.next_update,
        revoked: list.entries,
    };
    output.document(&shown, |output| {
        output.pairs(vec![
            ("list", args.out.display().to_string()),
            ("authority", authority.description().subject.clone()),
            ("number", list.number.to_string()),
            ("this update", time_text(list.this_update)),
            ("next update", time_text(list.next_update)),
            ("revoked", list.entries.to_string()),
        ])
    })
}

/// The list that is to be replaced. Nothing else is overwritten.
fn earlier_list(args: &CrlArgs) -> Result<Option<EarlierList>, Failure> {
    if args.out.symlink_metadata().is_err() {
        return Ok(None);
    }
    match EarlierList::read(&args.out, &args.ca) {
        Ok(list) => Ok(Some(list)),
        Err(_) if args.replace => Ok(None),
        Err(error) => Err(Failure::refused(
            format!("{error}; nothing was overwritten"),
            "--replace overwrites it all the same",
        )),
    }
}

fn word(reason: RevocationReason) -> String {
    use clap::ValueEnum as _;
    let value = reason.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}
