//! `sso cert`: a small certificate authority for an installation by hand.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use sso_client::certificates::{
    AUTHORITY_CERTIFICATE, AUTHORITY_KEY, Authority, CertificateError, Description, Request, Role,
    describe,
};
use sso_core::clock::Clock;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{failure::Failure, output::Output};

const EXAMPLES: &str = "\
Example: one master, one server, one administrator.
  sso cert ca --out pki --name 'CORP SSO'
  sso cert issue --ca pki --out pki --role master --name sso-master --dns sso-master.corp.example
  sso cert issue --ca pki --out pki --role server --name sso-server-1 --dns sso-1.corp.example
  sso cert issue --ca pki --out pki --role client --name alice --account 'CORP\\alice'
Keep ca.key off the servers: it is needed only to issue.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make an authority: ca.crt and ca.key in a folder
    Ca(CaArgs),
    /// Issue a certificate with a new key: NAME.crt and NAME.key
    Issue(IssueArgs),
    /// Show what a certificate file says
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct CaArgs {
    /// Folder for ca.crt and ca.key; made where missing, nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the authority, as it appears in every certificate it issues
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Days until it ends
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = days_parser())]
    days: u16,
}

#[derive(Debug, Args)]
struct IssueArgs {
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
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// PEM file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn days_parser() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=36_500)
}

pub(crate) fn run(args: CertArgs, output: &Output) -> Result<(), Failure> {
    match args.command {
        CertCommand::Ca(args) => make_authority(&args, output),
        CertCommand::Issue(args) => issue(args, output),
        CertCommand::Show(args) => show(&describe(&args.file)?, output),
    }
}

fn make_authority(args: &CaArgs, output: &Output) -> Result<(), Failure> {
    let lifetime = Duration::days(args.days.into());
    let authority = Authority::create(&args.name, lifetime, false, Clock::System.now())?;
    authority.write(&args.out, false)?;
    output.note(&format!(
        "wrote {} and {}; keep the key off the servers",
        args.out.join(AUTHORITY_CERTIFICATE).display(),
        args.out.join(AUTHORITY_KEY).display()
    ));
    show(&describe(&args.out.join(AUTHORITY_CERTIFICATE))?, output)
}

fn issue(args: IssueArgs, output: &Output) -> Result<(), Failure> {
    let authority = Authority::load(&args.ca)?;
    let request = Request {
        name: args.name,
        role: args.role,
        dns: args.dns,
        addresses: args.ip,
        uris: args.uri,
        emails: args.email,
        account: args.account,
        lifetime: Duration::days(args.days.into()),
    };
    let issued = authority.issue(&request, Clock::System.now())?;
    let (certificate, key) = issued.write(&args.out, &request.name, false)?;
    output.note(&format!("wrote {} and {}", certificate.display(), key.display()));
    show(&describe(&certificate)?, output)
}

fn show(certificate: &Description, output: &Output) -> Result<(), Failure> {
    output.document(certificate, |output| {
        let yes_or_no = |yes| if yes { "yes" } else { "no" }.to_owned();
        let mut pairs = vec![
            ("subject", certificate.subject.clone()),
            ("issuer", certificate.issuer.clone()),
            ("names", list(&certificate.alternative_names)),
            ("valid from", shown(certificate.not_before)),
            ("valid until", shown(certificate.not_after)),
            ("fingerprint", certificate.fingerprint_sha256.clone()),
            ("serial", certificate.serial.clone()),
            ("usage", list(&certificate.usages)),
            ("authority", yes_or_no(certificate.authority)),
        ];
        if certificate.development {
            pairs.push(("development", "yes: refused outside of `sso dev`".to_owned()));
        }
        output.pairs(pairs)
    })
}

fn list(texts: &[String]) -> String {
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

fn shown(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        let message = error.to_string();
        match error {
            CertificateError::Request(_) => Self::usage(message),
            CertificateError::Exists(_) => {
                Self::refused(message, "remove it first, or name another folder")
            }
            CertificateError::File { path, source } => Self::io(path.display().to_string(), source),
            CertificateError::Content { path, what } => {
                Self::File { file: path.display().to_string(), message: what }
            }
            CertificateError::Build(_) => Self::usage(message),
            CertificateError::Randomness => Self::Unavailable(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn run_line(line: &[&str]) -> Result<(), Failure> {
        let cli = Cli::try_parse_from(["sso", "--quiet", "cert"].iter().chain(line)).unwrap();
        let output = Output::new(&cli.global);
        let Command::Cert(args) = cli.command else { panic!("another command") };
        run(args, &output)
    }

    #[test]
    fn a_small_installation_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        run_line(&["ca", "--out", out, "--name", "CORP SSO"]).unwrap();
        let issue = ["issue", "--ca", out, "--out", out, "--name"];
        run_line(&[&issue[..], &["m", "--role", "master", "--ip", "10.0.0.1"]].concat()).unwrap();
        let client = [&issue[..], &["alice", "--role", "client", "--account", r"CORP\alice"]];
        run_line(&client.concat()).unwrap();
        run_line(&["show", folder.path().join("alice.crt").to_str().unwrap()]).unwrap();

        let again = run_line(&client.concat()).unwrap_err();
        assert_eq!(again.exit_code(), 1, "{again:?}");
        let second = run_line(&["ca", "--out", out, "--name", "CORP SSO"]).unwrap_err();
        assert_eq!(second.exit_code(), 1, "{second:?}");
    }

    #[test]
    fn bad_input_has_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        run_line(&["ca", "--out", out, "--name", "CORP SSO", "--days", "30"]).unwrap();
        let issue = ["issue", "--ca", out, "--out", out, "--role", "client", "--name"];
        let too_long = run_line(&[&issue[..], &["x", "--days", "31"]].concat()).unwrap_err();
        assert_eq!(too_long.exit_code(), 2, "{too_long:?}");
        let key = folder.path().join("ca.key");
        let no_certificate = run_line(&["show", key.to_str().unwrap()]).unwrap_err();
        assert_eq!(no_certificate.exit_code(), 2, "{no_certificate:?}");
        let missing = run_line(&["show", "/nowhere/x.crt"]).unwrap_err();
        assert_eq!(missing.exit_code(), 1, "{missing:?}");
    }
}
