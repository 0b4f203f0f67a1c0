//! The options of `sso mapping`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueHint};
use sso_client::{MappingFilter, MappingKey};

use super::rules::{NameRules, PasswordRules, PasswordSource};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["application", "file"]))]
#[command(after_help = "\
A mapping is created disabled and without credentials unless --enable, --values or --prompt is
given. In a host group application the account may be left empty: ''. Credentials are a JSON
array of the values from field 1 on, like [\"secret\"]; they never stand on the command line.

A file has the elements of the reference product and no credentials:
  <sso><mapping><windowsDomain>CORP</windowsDomain><windowsUserId>asmith</windowsUserId>
  <externalApplication>Mainframe</externalApplication><externalUserId>ASM01</externalUserId>
  </mapping></sso>
Mappings that are refused are listed with their lines, the rest is created: exit code 1.

Examples:
  sso mapping create Mainframe 'CORP\\asmith' ASM01
  sso mapping create Mainframe 'CORP\\asmith' ASM01 --values - --enable < credentials.json
  sso mapping create --file mappings.xml --dry-run")]
pub(crate) struct CreateArgs {
    /// Name of the application
    #[arg(value_name = "APP", requires = "external_user")]
    pub(super) application: Option<String>,
    /// DOMAIN\name of the user; in a group application one of its accounts
    #[arg(value_name = "ACCOUNT")]
    pub(super) account: Option<String>,
    /// Name in the external system
    #[arg(value_name = "EXTERNAL_USER")]
    pub(super) external_user: Option<String>,
    /// XML file of mappings; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// File with a JSON array of credentials; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "file")]
    pub(super) values: Option<PathBuf>,
    /// Ask for the credentials on the terminal without showing them
    #[arg(long, conflicts_with_all = ["file", "values"])]
    pub(super) prompt: bool,
    /// Enable it at once
    #[arg(long)]
    pub(super) enable: bool,
    /// Say what would happen with the file, change nothing
    #[arg(long, conflicts_with = "application")]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without APP: your own mappings in every application; affiliate administrators may ask for
those of another account. An orphaned mapping belongs to an account that is no longer among
the users of its application; it serves nobody.

Examples:
  sso mapping list
  sso mapping list Mainframe
  sso mapping list Mainframe --orphaned --output json
  sso mapping list --account 'CORP\\asmith'")]
pub(crate) struct ListArgs {
    /// Name of the application
    #[arg(value_name = "APP", default_value = "", hide_default_value = true)]
    application: String,
    /// Only of this account, DOMAIN\name
    #[arg(long, value_name = "ACCOUNT", default_value = "", hide_default_value = true)]
    account: String,
    /// Only of this external user
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        requires = "application"
    )]
    external_user: String,
    /// Only those whose account is not among the users of the application
    #[arg(long)]
    orphaned: bool,
}

impl ListArgs {
    pub(super) fn filter(self) -> MappingFilter {
        MappingFilter {
            application: self.application,
            account: self.account,
            external_user: self.external_user,
            orphaned: self.orphaned,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Without an account or an external user it is your own mapping.

Examples:
  sso mapping show Mainframe
  sso mapping enable Mainframe 'CORP\\asmith'
  sso mapping disable Batch --external-user JOB001")]
pub(crate) struct KeyArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: String,
    /// DOMAIN\name; in a group application one of its accounts
    #[arg(value_name = "ACCOUNT")]
    account: Option<String>,
    /// The external user instead; in a host group application always
    #[arg(long, value_name = "NAME", conflicts_with = "account")]
    external_user: Option<String>,
}

impl KeyArgs {
    pub(super) fn key(&self) -> MappingKey {
        key(&self.application, self.account.as_deref(), self.external_user.as_deref())
    }
}

fn key(application: &str, account: Option<&str>, external_user: Option<&str>) -> MappingKey {
    match (account, external_user) {
        (Some(account), _) => MappingKey::account(application, account),
        (None, Some(user)) => MappingKey::external_user(application, user),
        (None, None) => MappingKey::own(application),
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["application", "file"]))]
#[command(after_help = "\
Without an account or an external user it is your own mapping. Of a file, what is not there is
listed as refused with its line, the rest is deleted: exit code 1.

Examples:
  sso mapping delete Mainframe 'CORP\\asmith'
  sso mapping delete Batch --external-user JOB001 --yes
  sso mapping delete --file mappings.xml --dry-run")]
pub(crate) struct DeleteArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    application: Option<String>,
    /// DOMAIN\name; in a group application one of its accounts
    #[arg(value_name = "ACCOUNT", requires = "application")]
    account: Option<String>,
    /// The external user instead; in a host group application always
    #[arg(long, value_name = "NAME", conflicts_with_all = ["account", "file"])]
    external_user: Option<String>,
    /// XML file of mappings; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// Say what would happen with the file, change nothing
    #[arg(long, conflicts_with = "application")]
    pub(super) dry_run: bool,
    /// Do not ask; without a terminal nothing is asked either
    #[arg(long, short)]
    pub(super) yes: bool,
}

impl DeleteArgs {
    pub(super) fn key(&self) -> MappingKey {
        let application = self.application.as_deref().unwrap_or_default();
        key(application, self.account.as_deref(), self.external_user.as_deref())
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Credentials are the values of the fields from field 1 on, as a JSON array: [\"secret\"]. Without
--values you are asked for each on the terminal; nothing is shown, masked ones are asked twice.
Without ACCOUNT it is your own mapping. In a host group application the mapping is named by
--external-user; in the others a mapping that is missing is created for that external user,
and enabled.

Examples:
  sso mapping set-credentials Mainframe
  sso mapping set-credentials Mainframe 'CORP\\asmith' --values - < credentials.json
  sso mapping set-credentials Mainframe --external-user ASM01
  sso mapping set-credentials Batch --external-user JOB001 --values credentials.json")]
pub(crate) struct SetCredentialsArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    pub(super) application: String,
    /// DOMAIN\name; in a group application one of its accounts
    #[arg(value_name = "ACCOUNT")]
    pub(super) account: Option<String>,
    /// File with a JSON array of credentials; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) values: Option<PathBuf>,
    /// External user of a mapping to create where it is missing; in a host group application of the
    /// mapping meant
    #[arg(long, value_name = "NAME")]
    pub(super) external_user: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The name in the external system is made of the account: domain, separator, user, without the
characters of --remove, with --prepend before and --append behind, cut to --max-length. Names
that clash are found before anything is written. An account that has a mapping keeps it.

With --password the application has one field beside field 0. What the password rules add
stands on the command line, so it is no secret: the password is one to be changed.

Examples:
  sso mapping generate Mainframe --user upper --max-length 8 --dry-run
  sso mapping generate Mainframe --domain lower --separator - --remove '. '
  sso mapping generate Mainframe --user upper --password prompt
  sso mapping generate Mainframe --write mappings.xml --dry-run")]
pub(crate) struct GenerateArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    pub(super) application: String,
    /// Password of each mapping: none, the external user, made by the rules of --password-user and the
    /// others, or one for all that is asked for (without a terminal a line of standard input)
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    pub(super) password: PasswordSource,
    /// Leave the mappings disabled
    #[arg(long)]
    pub(super) no_enable: bool,
    /// Show the mappings, change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Write the mappings to an XML file too; with --dry-run only
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) write: Option<PathBuf>,
    #[command(flatten)]
    pub(super) name: NameRules,
    #[command(flatten)]
    pub(super) password_rules: PasswordRules,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file has no credentials, and not whether a mapping is enabled.

Examples:
  sso mapping export Mainframe > mappings.xml
  sso mapping export Mainframe --orphaned --file orphans.xml
  sso mapping delete --file orphans.xml")]
pub(crate) struct ExportArgs {
    /// Name of the application
    #[arg(value_name = "APP")]
    pub(super) application: String,
    /// Only those whose account is not among the users of the application
    #[arg(long)]
    pub(super) orphaned: bool,
    /// File to write instead of standard output; an existing one is replaced
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
}
