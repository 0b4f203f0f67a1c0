//! The arguments of `sso secret`.

use std::path::PathBuf;

use clap::Args;
use sso_client::secret::ShareCount;

#[derive(Debug, Args)]
#[command(after_help = "\
What happens: a new generation is prepared, a backup with it is written to FILE and opened again, and only
then is the generation handed out. It is activated as soon as every server and every other master has it;
then the servers seal all values again under it, while everything goes on. The old generation stays until
'sso secret retire' closes it.

With --wait the command follows that to the end, or for as long as a --timeout that is given. Ctrl-C ends
the waiting and not the rotation.

Examples:
  sso secret rotate --backup /safe/2031-05.backup
  sso secret rotate --backup /safe/2031-05.backup --password-file backup.password --wait --retire
  sso secret rotate --backup /safe/b --officer ada=ada.pub --shares 3/5 --share-folder /media/stick
  sso secret rotate --continue --leave-behind sso-server-3 --wait")]
pub(crate) struct RotateArgs {
    /// Where the backup with the new generation goes; never over another file
    #[arg(long, value_name = "FILE", required_unless_present = "go_on")]
    pub(super) backup: Option<PathBuf>,
    #[command(flatten)]
    pub(super) locks: LocksArgs,
    /// Go on with a generation that is prepared, backed up and waits to be handed out or activated
    #[arg(long = "continue", conflicts_with_all = ["backup", "password_file", "officers", "shares"])]
    pub(super) go_on: bool,
    /// Do not wait for this server or master, which is away; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) leave_behind: Vec<String>,
    /// Rows a second that sealing again may take from the database; 0 = as many as it gives
    #[arg(long, value_name = "ROWS", default_value_t = 0, hide_default_value = true)]
    pub(super) rows_per_second: u32,
    /// Wait until it is active and everything is sealed again
    #[arg(long)]
    pub(super) wait: bool,
    /// At the end retire every generation that nothing is sealed under
    #[arg(long, requires = "wait")]
    pub(super) retire: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file is written for you alone, read again and opened: only then does it count.

Examples:
  sso secret backup /safe/now.backup
  sso secret backup /safe/now.backup --password-file backup.password --reminder 'the usual one'
  sso secret backup /safe/now.backup --officer ada=ada.pub --officer bob=bob.pub --shares 2/3 --share-folder shares")]
pub(crate) struct BackupArgs {
    /// Where the backup goes; never over another file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) locks: LocksArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A backup that opened counts as proved, for every generation whose key it gave back.

With --against-database the server of the profile opens every sealed row of the database with the keys of the
file, which the master sends it; nothing is changed and no value leaves the server. What does not open is
named, and the command ends with 1.

Examples:
  sso secret verify /safe/now.backup
  sso secret verify /safe/now.backup --against-database --password-file backup.password
  sso secret verify /safe/now.backup --share shares/now.backup.share-1 --share shares/now.backup.share-3")]
pub(crate) struct VerifyArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) opener: OpenerArgs,
    /// Open every sealed row of the database with the keys of the backup
    #[arg(long)]
    pub(super) against_database: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
All generations of the backup that the keystore lacks come back, or none. Nothing is overwritten: the keystore
of before is kept beside the new one. On a new host, or where the keystore is lost, 'sso-master restore' makes
a whole one.

Examples:
  sso secret restore /safe/now.backup
  sso secret restore /safe/now.backup --officer-key ada.key")]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) opener: OpenerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is sealed under the generation, in old backups of the database too, can then be opened with backups of
the master secret alone.

Examples:
  sso secret destroy 1
  sso secret destroy 1 --fingerprint 0b61e0e6a5b1c9f4 --yes")]
pub(crate) struct DestroyArgs {
    /// Number of the generation
    #[arg(value_name = "GENERATION")]
    pub(super) generation: u32,
    /// Its fingerprint, as 'sso secret status' shows it: to be sure that it is the right one. Without it
    /// you are asked to type it
    #[arg(long, value_name = "HEX")]
    pub(super) fingerprint: Option<String>,
    /// Do not ask
    #[arg(long, short = 'y', requires = "fingerprint")]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The former primary steps down by itself as soon as it hears of the new epoch; servers take it for outdated at
once. Refused while the standby lacks a generation that the database uses, or nobody can say which it uses;
--force promotes it all the same, and values of the missing generations do not open until it is restored.

Examples:
  sso secret --master unix:///run/sso-master/admin.sock promote
  sso secret promote --force --yes")]
pub(crate) struct PromoteArgs {
    /// Although it lacks generations, or nobody can say which the database uses
    #[arg(long)]
    pub(super) force: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub(super) yes: bool,
}

/// How a backup is locked.
#[derive(Debug, Default, Args)]
pub(super) struct LocksArgs {
    /// Private file with the password, 7 to 256 characters; - reads standard input. Without it, officers
    /// and shares you are asked, twice
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Helps to remember the password; whoever has the backup can read it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) reminder: String,
    /// An officer who opens the backup alone, and the FILE.pub of 'sso secret officer-key'; may be repeated
    #[arg(long = "officer", value_name = "NAME=FILE", value_parser = parse_officer)]
    pub(super) officers: Vec<(String, PathBuf)>,
    /// Shares to make, and how many of them open together, such as 3/5
    #[arg(long, value_name = "NEEDED/TOTAL", value_parser = parse_shares, requires = "share_folder")]
    pub(super) shares: Option<ShareCount>,
    /// Folder for the shares, one private file for each holder; made where missing
    #[arg(long, value_name = "DIR", requires = "shares")]
    pub(super) share_folder: Option<PathBuf>,
}

/// How a backup is opened.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(super) struct OpenerArgs {
    /// Private file with the password; - reads standard input. Without it you are asked
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Private key of an officer of the backup; it is used here and sent nowhere
    #[arg(long, value_name = "FILE")]
    pub(super) officer_key: Option<PathBuf>,
    /// File with a share of the backup; as many as are needed
    #[arg(long = "share", value_name = "FILE")]
    pub(super) shares: Vec<PathBuf>,
}

fn parse_officer(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.trim().is_empty() && !file.is_empty() => {
            Ok((name.trim().to_owned(), file.into()))
        }
        Some(_) | None => Err("write NAME=FILE, with the FILE.pub of the officer".to_owned()),
    }
}

fn parse_shares(text: &str) -> Result<ShareCount, String> {
    let numbers = text.split_once('/').and_then(|(needed, total)| {
        Some((needed.parse::<u32>().ok()?, total.parse::<u32>().ok()?))
    });
    match numbers {
        Some((needed, total)) if needed >= 2 && needed <= total && total <= 255 => {
            Ok(ShareCount { needed, total })
        }
        Some(_) | None => {
            Err("write NEEDED/TOTAL, such as 3/5: at least 2 open, of at most 255".to_owned())
        }
    }
}
