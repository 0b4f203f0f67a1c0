//! `sso cert request`: a key, and the request for a certificate from any authority.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;
use serde::Serialize;
use sso_client::certificates::{
    CertificateError, KeyType, PrivateKey, Role, SigningRequest, Subject, Usage, Wanted,
};

use super::{
    authority::refuse_existing,
    passphrase::{self, KeyArgs},
};
use crate::{failure::Failure, output::Output};

const EXAMPLES: &str = "\
Examples:
  sso cert request --out tls --name gateway-client --usage client \\
    --subject 'CN=bills.corp.example,O=Example,C=DE'
  sso cert request --out tls --name sso-server-1 --role server --dns sso-1.corp.example
Send NAME.csr to the authority and keep NAME.key here. What comes back goes in with sso cert install.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RequestArgs {
    /// Folder for NAME.key and NAME.csr; made where missing, nothing is overwritten
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the two files, and the common name where no --subject is given
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Subject of parts CN, O, OU, L, ST, C with a comma between them
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<Subject>,
    /// What it is for in this product: sets purposes and the name of a server or master
    #[arg(long, value_enum, conflicts_with = "usage")]
    role: Option<Role>,
    /// What it is for elsewhere; may be repeated
    #[arg(long, value_enum)]
    usage: Vec<Usage>,
    /// Host name; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Address; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// URI; may be repeated
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,
    /// E-mail address; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    email: Vec<String>,
    /// Account of a client of this product, DOMAIN\name
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Private key to use again; no new one is made
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key_type", "encrypt_key"])]
    key: Option<PathBuf>,
    /// Kind of the new key
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    key_type: KeyType,
    #[command(flatten)]
    new_key: KeyArgs,
}

#[derive(Serialize)]
struct Made {
    request: PathBuf,
    key: PathBuf,
    #[serde(flatten)]
    wanted: SigningRequest,
}

pub(super) fn run(args: RequestArgs, output: &Output) -> Result<(), Failure> {
    let request = args.out.join(format!("{}.csr", args.name));
    let key_file = args.key.clone().unwrap_or_else(|| args.out.join(format!("{}.key", args.name)));
    let mut new_files = vec![request.as_path()];
    if args.key.is_none() {
        new_files.push(&key_file);
    }
    refuse_existing(&new_files)?;
    let wanted = Wanted {
        name: args.name,
        subject: args.subject,
        role: args.role,
        usages: args.usage,
        dns: args.dns,
        addresses: args.ip,
        uris: args.uri,
        emails: args.email,
        account: args.account,
    };
    let key = match &args.key {
        Some(file) => {
            let passphrase_file = args.new_key.passphrase_file.as_deref();
            passphrase::open(passphrase_file, "--passphrase-file", |passphrase| {
                PrivateKey::read(file, passphrase)
            })?
        }
        None => PrivateKey::generate(args.key_type)?,
    };
    // First: names that cannot be leave no key behind.
    let text = wanted.sign(&key)?;
    if args.key.is_none() {
        let passphrase = args.new_key.new_passphrase()?;
        std::fs::create_dir_all(&args.out).map_err(|source| {
            Failure::from(CertificateError::File { path: args.out.clone(), source })
        })?;
        key.write(&key_file, passphrase.as_ref(), false)?;
    }
    SigningRequest::write(&request, &text)?;
    let wanted = SigningRequest::read(&request)?;
    let made = Made { request, key: key_file, wanted };
    output.document(&made, |output| {
        output.pairs(vec![
            ("request", made.request.display().to_string()),
            ("private key", made.key.display().to_string()),
            ("subject", made.wanted.subject.clone()),
            ("names", super::shown::list(&made.wanted.alternative_names)),
            ("key", made.wanted.key.clone()),
        ])
    })
}
