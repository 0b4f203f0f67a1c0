//! `sso cert ca` and `sso cert issue`: an authority, and certificates with new keys.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use sso_client::certificates::{
    AUTHORITY_CERTIFICATE, AUTHORITY_CHAIN, AUTHORITY_KEY, AUTHORITY_ROOT, Authority,
    CertificateError, KeyType, Ledger, Request, Role,
};
use sso_core::clock::Clock;
use time::Duration;

use super::{
    passphrase::{self, KeyArgs},
    shown::print_written,
};
use crate::{failure::Failure, output::Output};

/// Days of a root, of an intermediate authority and of a leaf, unless said otherwise.
const ROOT_DAYS: u16 = 3650;
const INTERMEDIATE_DAYS: u16 = 1825;

const CA_EXAMPLES: &str = "\
Examples:
  sso cert ca --out root --name 'CORP Root'
  sso cert ca --out issuing --name 'CORP Issuing 1' --parent root --days 1000
With --parent the folder also has chain.crt (behind every certificate that is issued) and root.crt
(what others trust). Every ca.crt needs a revocation list of its own: sso cert crl --help.";

#[derive(Debug, Args)]
#[command(after_help = CA_EXAMPLES)]
pub(super) struct CaArgs {
    /// Folder for ca.crt and ca.key; made where missing, nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the authority, as it appears in every certificate it issues
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Folder of the root that this one stands below; without it the new one is a root
    #[arg(long, value_name = "DIR")]
    parent: Option<PathBuf>,
    /// Days until it ends [default: 3650, with --parent 1825]
    #[arg(long, value_name = "DAYS", value_parser = days_parser())]
    days: Option<u16>,
    /// Kind of its key
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    key_type: KeyType,
    #[command(flatten)]
    key: KeyArgs,
    /// Private file with the passphrase of the parent's ca.key
    #[arg(long, value_name = "FILE", requires = "parent")]
    ca_passphrase_file: Option<PathBuf>,
}

const ISSUE_EXAMPLES: &str = "\
Examples:
  sso cert issue --ca pki --out pki --role server --name sso-server-1 --dns sso-1.corp.example
  sso cert issue --ca pki --out pki --role client --name alice --account 'CORP\\alice' --encrypt-key
A copy of every certificate stays in issued/ below the folder of the authority, for sso cert revoke.";

#[derive(Debug, Args)]
#[command(after_help = ISSUE_EXAMPLES)]
pub(super) struct IssueArgs {
    /// Folder with ca.crt and ca.key
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Folder for NAME.crt and NAME.key; made where missing, nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Common name, and name of the two files
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it is for: servers and masters serve and call, clients only call
    #[arg(long, value_enum)]
    role: Role,
    /// Host name under which a server or master is dialled; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Address under which a server or master is dialled; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Account of a client, DOMAIN\name: becomes the URI sso://DOMAIN/name
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Further URI of the subject alternative name; may be repeated
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,
    /// E-mail address of the subject alternative name; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<String>,
    /// Days until it ends
    #[arg(long, value_name = "DAYS", default_value_t = 397, value_parser = days_parser())]
    days: u16,
    /// Address of the revocation list, named in the certificate for systems that look there
    #[arg(long, value_name = "URL")]
    crl_url: Option<String>,
    /// Kind of its key
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    key_type: KeyType,
    #[command(flatten)]
    key: KeyArgs,
    /// Private file with the passphrase of ca.key
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<PathBuf>,
}

/// Lifetimes in days.
pub(super) fn days_parser() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=36_500)
}

/// The authority in a folder; asks for the passphrase of its key where there is one.
pub(super) fn open_authority(
    folder: &Path,
    passphrase_file: Option<&Path>,
) -> Result<Authority, Failure> {
    passphrase::open(passphrase_file, "--ca-passphrase-file", |passphrase| {
        Authority::open(folder, passphrase)
    })
}

pub(super) fn make(args: &CaArgs, output: &Output) -> Result<(), Failure> {
    let now = Clock::System.now();
    let certificate = args.out.join(AUTHORITY_CERTIFICATE);
    let key = args.out.join(AUTHORITY_KEY);
    // Before anybody types a passphrase for nothing.
    refuse_existing(&[&certificate, &key])?;
    let default = if args.parent.is_some() { INTERMEDIATE_DAYS } else { ROOT_DAYS };
    let lifetime = Duration::days(args.days.unwrap_or(default).into());
    let mut files = vec![certificate, key];
    let authority = match &args.parent {
        None => Authority::create_with(&args.name, args.key_type, lifetime, false, now)?,
        Some(folder) => {
            let parent = open_authority(folder, args.ca_passphrase_file.as_deref())?;
            let made = parent.create_intermediate(&args.name, args.key_type, lifetime, now)?;
            Ledger::of(folder).record(made.certificate())?;
            files.extend([AUTHORITY_CHAIN, AUTHORITY_ROOT].map(|name| args.out.join(name)));
            made
        }
    };
    authority.write_encrypted(&args.out, args.key.new_passphrase()?.as_ref(), false)?;
    print_written(&files, now, output)?;
    output.note("keep ca.key off the servers: it is needed to issue and to sign revocation lists");
    Ok(())
}

pub(super) fn issue(args: IssueArgs, output: &Output) -> Result<(), Failure> {
    let now = Clock::System.now();
    let file = |ending: &str| args.out.join(format!("{}.{ending}", args.name));
    refuse_existing(&[&file("crt"), &file("key")])?;
    let authority = open_authority(&args.ca, args.ca_passphrase_file.as_deref())?;
    let request = Request {
        name: args.name,
        role: args.role,
        dns: args.dns,
        addresses: args.ip,
        uris: args.uri,
        emails: args.email,
        account: args.account,
        lifetime: Duration::days(args.days.into()),
        key_type: args.key_type,
        revocation_list: args.crl_url,
    };
    let issued = authority.issue(&request, now)?;
    let passphrase = args.key.new_passphrase()?;
    Ledger::of(&args.ca).record(&issued.certificate)?;
    let (certificate, key) =
        issued.write_encrypted(&args.out, &request.name, passphrase.as_ref(), false)?;
    print_written(&[certificate, key], now, output)
}

/// Before work is done for a file that would not be written.
pub(super) fn refuse_existing(files: &[&Path]) -> Result<(), Failure> {
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(file) => Err(CertificateError::Exists(file.to_path_buf()).into()),
        None => Ok(()),
    }
}
