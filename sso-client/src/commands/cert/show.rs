//! `sso cert show`: what is in a file, whoever made it, or what a running server shows.

use std::path::{Path, PathBuf};

use clap::Args;
use sso_client::{
    SecretText,
    certificates::{Bundle, CertificateError, PrivateKey, Tree, probe::Target},
};
use sso_core::clock::Clock;

use super::{address, check, passphrase, shown};
use crate::{commands::Service, failure::Failure, output::Output};

const EXAMPLES: &str = "\
Examples:
  sso cert show pki/sso-server-1.crt
  sso cert show gateway.p12 --passphrase-file gateway.pass
  sso cert show bills.crt --ca trusted.pem --key bills.key --output json
  sso cert show pay.example:443
The tree goes from the root down to the leaf. The private key is looked for in the file, in --key and in
NAME.key beside NAME.crt.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowArgs {
    /// File in PEM, DER or PKCS #12, or the address of a server
    #[arg(value_name = "FILE|HOST:PORT")]
    pub(super) file: PathBuf,
    /// Private key that may belong to it
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with certificates of authorities, to be shown above those of the file
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Private file with the passphrase of the file, or of the key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) async fn run(
    args: &ShowArgs,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match args.target() {
        Some(target) => of_server(args, &target, service, output).await,
        None => of_file(args, output),
    }
}

impl ShowArgs {
    /// What is an address, and no file that is there.
    fn target(&self) -> Option<Target> {
        match self.file.exists() {
            true => None,
            false => self.file.to_str()?.parse().ok(),
        }
    }
}

async fn of_server(
    args: &ShowArgs,
    target: &Target,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    let passphrase = args.passphrase_file.as_deref().map(passphrase::read).transpose()?;
    let authorities = match &args.ca {
        Some(file) => Bundle::read(file, None)?.certificates,
        None => Vec::new(),
    };
    let mark = |tree: &mut Tree| match &args.key {
        Some(file) if !mark_key(tree, file, passphrase.as_ref())? => {
            let (certificate, key) = (args.file.clone(), file.clone());
            Err(CertificateError::KeyMismatch { certificate, key }.into())
        }
        Some(_) | None => Ok(()),
    };
    let timeout = service.global.timeout.unwrap_or(check::TIMEOUT);
    address::show(target, timeout, authorities, mark, output).await
}

fn of_file(args: &ShowArgs, output: &Output) -> Result<(), Failure> {
    let passphrase_file = args.passphrase_file.as_deref();
    let passphrase = passphrase_file.map(passphrase::read).transpose()?;
    let bundle = match &passphrase {
        Some(text) => Bundle::read(&args.file, Some(text))?,
        None => passphrase::open(None, "--passphrase-file", |it| Bundle::read(&args.file, it))?,
    };
    let mut certificates = bundle.certificates;
    if let Some(file) = &args.ca {
        certificates.extend(Bundle::read(file, None)?.certificates);
    }
    let mut tree = Tree::build(&certificates);
    let beside = args.file.with_extension("key");
    let mut mismatch = None;
    if let Some(key) = &bundle.key {
        tree.mark_key(key, "in the file");
    } else if let Some(file) = &args.key {
        if !mark_key(&mut tree, file, passphrase.as_ref())? {
            let (certificate, key) = (args.file.clone(), file.clone());
            mismatch = Some(CertificateError::KeyMismatch { certificate, key });
        }
    } else if bundle.has_closed_key {
        output
            .note("the private key in the file is encrypted: --passphrase-file tells whose it is");
    } else if beside != args.file && beside.is_file() {
        try_key_beside(&mut tree, &beside, passphrase.as_ref(), output);
    }
    shown::print(&tree, Clock::System.now(), output)?;
    match mismatch {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Notes at the certificates of a tree that the key in the file is theirs; asks for its passphrase where
/// it needs one. Gives whether there is such a certificate.
pub(super) fn mark_key(
    tree: &mut Tree,
    file: &Path,
    passphrase: Option<&SecretText>,
) -> Result<bool, Failure> {
    let key = match passphrase {
        Some(text) => PrivateKey::read(file, Some(text))?,
        None => passphrase::open(None, "--passphrase-file", |it| PrivateKey::read(file, it))?,
    };
    Ok(tree.mark_key(&key, &file.display().to_string()))
}

/// A key that nobody named: what is wrong with it is a note.
fn try_key_beside(tree: &mut Tree, file: &Path, passphrase: Option<&SecretText>, output: &Output) {
    match PrivateKey::read(file, passphrase) {
        Ok(key) => {
            if !tree.mark_key(&key, &file.display().to_string()) {
                output.note(&format!("{} is not the key of any of these", file.display()));
            }
        }
        Err(error) => output.note(&format!("the key beside it cannot be used: {error}")),
    }
}
