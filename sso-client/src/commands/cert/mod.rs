//! `sso cert`: certificates from the request to the revocation.

mod address;
mod authority;
mod check;
mod failure;
mod install;
mod passphrase;
mod request;
mod revoke;
mod show;
pub(crate) mod shown;
mod sign;

use clap::{Args, Subcommand};
use sso_core::exit::Exit;

use crate::{failure::Failure, output::Output};

use super::Service;

const EXAMPLES: &str = "\
Example: one master, one server, one administrator.
  sso cert ca --out pki --name 'CORP SSO'
  sso cert issue --ca pki --out pki --role master --name sso-master --dns sso-master.corp.example
  sso cert issue --ca pki --out pki --role server --name sso-server-1 --dns sso-1.corp.example
  sso cert issue --ca pki --out pki --role client --name alice --account 'CORP\\alice'
  sso cert crl --ca pki --out pki/ca.crl
Example: a client certificate of another authority, for a system outside.
  sso cert request --out tls --name gateway --usage client --subject 'CN=bills.corp.example,O=Example'
  sso cert install --certificate answer.pem --key tls/gateway.key --ca their-ca.pem --out installed \\
    --name gateway --usage client
  sso cert show installed/gateway.crt
Keep ca.key off the servers: it is needed only to issue and to sign revocation lists.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make an authority, or one below another: ca.crt and ca.key in a folder
    Ca(authority::CaArgs),
    /// Issue a certificate with a new key: NAME.crt and NAME.key
    Issue(authority::IssueArgs),
    /// Make a key and a request for an authority: NAME.key and NAME.csr
    Request(request::RequestArgs),
    /// Issue a certificate for a request
    Sign(sign::SignArgs),
    /// Check a certificate with its key and chain, and put it where programs read it
    Install(install::InstallArgs),
    /// Show the certificates in a file or of a running server: who issued whom, for what, until when
    Show(show::ShowArgs),
    /// Shake hands with a server, step by step: versions, chain, revocation, client certificate
    Check(check::CheckArgs),
    /// Write down that a certificate is no longer good
    Revoke(revoke::RevokeArgs),
    /// Sign the list of all revoked certificates
    Crl(revoke::CrlArgs),
    /// Write a certificate with its key and chain into a PKCS #12 file
    Export(install::ExportArgs),
    /// Take a certificate with its key and chain out of a PKCS #12 file
    Import(install::ImportArgs),
}

pub(crate) async fn run(
    args: CertArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<u8, Failure> {
    match args.command {
        CertCommand::Ca(args) => authority::make(&args, output)?,
        CertCommand::Issue(args) => authority::issue(args, output)?,
        CertCommand::Request(args) => request::run(args, output)?,
        CertCommand::Sign(args) => sign::run(args, output)?,
        CertCommand::Install(args) => install::install(&args, output)?,
        CertCommand::Show(args) => show::run(&args, service, output).await?,
        CertCommand::Check(args) => return check::run(args, service, output).await,
        CertCommand::Revoke(args) => revoke::revoke(&args, output)?,
        CertCommand::Crl(args) => revoke::list(&args, output)?,
        CertCommand::Export(args) => install::export(&args, output)?,
        CertCommand::Import(args) => install::import(&args, output)?,
    }
    Ok(Exit::Ok.code())
}
