//! `sso cert install`, `export` and `import`: certificates with their keys, in and out.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use sso_client::certificates::{Identity, Installed, Parts, Usage};
use sso_core::clock::Clock;

use super::{
    authority::refuse_existing,
    passphrase::{self, NewKeyArgs},
    shown::{print_written, validity},
};
use crate::{failure::Failure, output::Output};

const INSTALL_EXAMPLES: &str = "\
Examples:
  sso cert install --certificate gateway.pem --key tls/gateway-client.key --chain issuing.pem \\
    --ca trusted.pem --out tls --name gateway-client --usage client
  sso cert install --certificate renewed.p12 --ca trusted.pem --out tls --name gateway --replace
Everything is checked first: the key fits, the chain is complete, the time and the purpose are right.
Programs that use the files notice by themselves within seconds; open connections go on.";

#[derive(Debug, Args)]
#[command(after_help = INSTALL_EXAMPLES)]
pub(super) struct InstallArgs {
    /// Certificate in PEM, DER or PKCS #12; it may have its chain and its key with it
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key, where it is in another file
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Certificates of intermediate authorities, in any order; may be repeated
    #[arg(long, value_name = "FILE")]
    chain: Vec<PathBuf>,
    /// Certificates of the authorities that the other side trusts
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Folder for NAME.crt and NAME.key; made where missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the two files
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it has to be good for; may be repeated
    #[arg(long, value_enum)]
    usage: Vec<Usage>,
    /// Overwrite the two files: a renewal
    #[arg(long)]
    replace: bool,
    /// Private file with the passphrase of the key that is read
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    new_key: NewKeyArgs,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  sso cert export --certificate tls/gateway.crt --key tls/gateway.key --out gateway.p12
  sso cert export --certificate tls/gateway.crt --key tls/gateway.key --chain root.crt \\
    --out gateway.p12 --passphrase-file gateway.pass
AES-256 and HMAC-SHA-256: Windows (Server 2019 and later), Java 8u301 and later and OpenSSL read it.";

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArgs {
    /// Certificate, and its chain
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key, where it is in another file
    // The same id as the global option, which it stands in for here.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Further certificates of its chain; may be repeated
    #[arg(long, value_name = "FILE")]
    chain: Vec<PathBuf>,
    /// PKCS #12 file, readable by its owner only
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Name of the entry in the file [default: name of the file of the certificate]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Overwrite the file
    #[arg(long)]
    replace: bool,
    /// Private file with the passphrase of the PKCS #12 file; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Private file with the passphrase of the key that is read
    #[arg(long, value_name = "FILE")]
    key_passphrase_file: Option<PathBuf>,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  sso cert import gateway.p12 --out tls --name gateway
  sso cert import gateway.p12 --out tls --name gateway --passphrase-file gateway.pass --replace
Roots in the file are left out: whom to trust is the matter of settings. Whether the chain is complete
and the certificate is good for something is not looked at: sso cert install does that, for these files
too.";

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArgs {
    /// PKCS #12 file, also one with the old encryption of Windows and Java
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder for NAME.crt and NAME.key; made where missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the two files
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Overwrite the two files
    #[arg(long)]
    replace: bool,
    /// Private file with the passphrase of the PKCS #12 file; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    new_key: NewKeyArgs,
}

pub(super) fn install(args: &InstallArgs, output: &Output) -> Result<(), Failure> {
    let now = Clock::System.now();
    if !args.replace {
        refuse_pair(&args.out, &args.name)?;
    }
    let parts = Parts {
        certificate: &args.certificate,
        key: args.key.as_deref(),
        chain: &args.chain,
        authorities: &args.ca,
        usages: &args.usage,
    };
    let identity =
        passphrase::open(args.passphrase_file.as_deref(), "--passphrase-file", |passphrase| {
            Identity::gather(&parts, passphrase, now)
        })?;
    let passphrase = args.new_key.new_passphrase()?;
    let installed = identity.write(&args.out, &args.name, passphrase.as_ref(), args.replace)?;
    written(installed, output)
}

pub(super) fn import(args: &ImportArgs, output: &Output) -> Result<(), Failure> {
    let now = Clock::System.now();
    if !args.replace {
        refuse_pair(&args.out, &args.name)?;
    }
    let identity =
        passphrase::open(args.passphrase_file.as_deref(), "--passphrase-file", |passphrase| {
            Identity::read(&args.file, None, &[], passphrase)
        })?;
    let leaf = &identity.leaf;
    if now < leaf.not_before || now > leaf.not_after {
        let text =
            format!("the certificate {} is not valid now: {}", leaf.subject, validity(leaf, now));
        output.warn(None, &text);
    }
    let passphrase = args.new_key.new_passphrase()?;
    let installed = identity.write(&args.out, &args.name, passphrase.as_ref(), args.replace)?;
    written(installed, output)
}

fn written(installed: Installed, output: &Output) -> Result<(), Failure> {
    let replaced = installed.replaced;
    print_written(&[installed.certificate, installed.key], Clock::System.now(), output)?;
    if replaced {
        output.note("programs that use these files notice by themselves within seconds");
    }
    Ok(())
}

#[derive(Serialize)]
struct Exported<'e> {
    file: &'e Path,
    name: String,
    subject: &'e str,
    certificates: usize,
}

pub(super) fn export(args: &ExportArgs, output: &Output) -> Result<(), Failure> {
    if !args.replace {
        refuse_existing(&[&args.out])?;
    }
    let identity = passphrase::open(
        args.key_passphrase_file.as_deref(),
        "--key-passphrase-file",
        |passphrase| {
            Identity::read(&args.certificate, args.key.as_deref(), &args.chain, passphrase)
        },
    )?;
    let stem = args.certificate.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = args.name.clone().or(stem).unwrap_or_else(|| "certificate".to_owned());
    let passphrase = passphrase::read_or_ask_new(
        args.passphrase_file.as_deref(),
        "Passphrase for the PKCS #12 file",
        "--passphrase-file",
    )?;
    identity.export(&args.out, &name, &passphrase, args.replace)?;
    let certificates = identity.certificates.len();
    let subject = identity.leaf.subject.as_str();
    let exported = Exported { file: &args.out, name, subject, certificates };
    output.document(&exported, |output| {
        output.pairs(vec![
            ("file", exported.file.display().to_string()),
            ("entry", exported.name.clone()),
            ("subject", subject.to_owned()),
            ("certificates", certificates.to_string()),
        ])
    })
}

fn refuse_pair(folder: &Path, name: &str) -> Result<(), Failure> {
    let certificate = folder.join(format!("{name}.crt"));
    let key = folder.join(format!("{name}.key"));
    refuse_existing(&[&certificate, &key]).map_err(|failure| {
        Failure::refused(failure.message(), "give --replace for a renewal, or another name")
    })
}
