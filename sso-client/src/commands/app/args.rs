//! The options of `sso app`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum, ValueHint};
use sso_client::v1::ApplicationType;

use super::flags::FlagArgs;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "file"]))]
#[command(after_help = "\
Field 0 takes the slot of the external user id and is never masked. It is made by itself;
--first-field labels it. The fields of --field count from 1. An application is created disabled
unless --enable is given. What a flag is when it is not given depends on the type: 'sso app show'
shows all of them afterwards.

A file has the elements of the reference product, older spellings included; several
<application> elements are created one by one, failures are reported and the rest goes on. A
malformed file (unknown elements too) changes nothing: exit code 2, with line and column.

Examples:
  sso app create OrderRouting.Settings --type config-store --field RetryLimit \\
      --field PartnerApiKey:masked --users 'CORP\\Orders' --admins 'CORP\\Order Admins' --enable
  sso app create Mainframe --type individual --first-field 'Host user' \\
      --field Password:masked --users 'CORP\\Clerks' --admins 'CORP\\Host Admins' --enable
  sso app create Batch --type host-group --windows-account 'CORP\\svc-batch' \\
      --field Password:masked --admins 'CORP\\Batch Hosts' --validate-password no --enable
  sso app create --file order-routing.xml")]
pub(crate) struct CreateArgs {
    /// Name of the application
    pub(super) name: Option<String>,
    /// XML file of applications; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// What the application keeps: credentials of single users, credentials shared by groups,
    /// configurations, or external users that all stand for one account
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = Kind::ConfigStore, conflicts_with = "file")]
    pub(super) kind: Kind,
    /// Label of a field; behind it :masked if nobody must see its values, and :synchronized for the
    /// one that holds the password to synchronise; repeated
    #[arg(long = "field", value_name = "LABEL[:masked][:synchronized]", value_parser = parse_field,
        conflicts_with = "file")]
    pub(super) fields: Vec<NewField>,
    /// Label of field 0 [default: reserved in a config store, else External user]
    #[arg(long, value_name = "LABEL", conflicts_with = "file")]
    pub(super) first_field: Option<String>,
    /// Account of the application users, DOMAIN\name; repeated or separated by ;. In a group
    /// application their order decides
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    pub(super) users: Vec<String>,
    /// Account of the application administrators, DOMAIN\name; repeated or separated by ;
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    pub(super) admins: Vec<String>,
    /// The account that every external user of a host group application stands for, DOMAIN\name
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["file", "users"])]
    pub(super) windows_account: Option<String>,
    /// Minutes a ticket is good for here, 1 to 525600 [default: as the system has it]
    #[arg(long, value_name = "MINUTES", conflicts_with = "file")]
    pub(super) ticket_timeout: Option<u32>,
    /// Free text
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "file"
    )]
    pub(super) description: String,
    /// Free text, often a mail address
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        conflicts_with = "file"
    )]
    pub(super) contact: String,
    /// Enable it at once
    #[arg(long, conflicts_with = "file")]
    pub(super) enable: bool,
    /// Accept accounts without a domain (single machine only)
    #[arg(long, conflicts_with = "file")]
    pub(super) allow_local_accounts: bool,
    /// The application administrators are always the affiliate administrators
    #[arg(long, conflicts_with_all = ["file", "admins"])]
    pub(super) administrators_same: bool,
    #[command(flatten)]
    pub(super) flags: FlagArgs,
}

// No help on the variants: it would make every page of help twice as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Individual,
    Group,
    ConfigStore,
    HostGroup,
}

impl From<Kind> for ApplicationType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Individual => Self::Individual,
            Kind::Group => Self::Group,
            Kind::ConfigStore => Self::ConfigStore,
            Kind::HostGroup => Self::HostGroup,
        }
    }
}

/// A field as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewField {
    pub(super) label: String,
    pub(super) masked: bool,
    pub(super) synchronized: bool,
}

pub(super) fn parse_field(text: &str) -> Result<NewField, String> {
    let (mut label, mut masked, mut synchronized) = (text, false, false);
    while let Some((before, mark)) = label.rsplit_once(':') {
        match mark.to_ascii_lowercase().as_str() {
            "masked" => masked = true,
            "synchronized" => synchronized = true,
            _ => break,
        }
        label = before;
    }
    match label.trim() {
        "" => Err("the label is empty".to_owned()),
        label => Ok(NewField { label: label.to_owned(), masked, synchronized }),
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only names that contain this text, regardless of case
    #[arg(value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) name_contains: String,
    /// Only this type
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub(super) kind: Option<Kind>,
    /// Only this contact, regardless of case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) contact: String,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["name", "file"]))]
#[command(after_help = "\
Only what is given is changed. Type, fields and --administrators-same cannot change; fields
of a config store can be added with 'sso app add-field'. In a file, elements and flags that
cannot change are ignored with a warning.

Examples:
  sso app update OrderRouting.Settings --contact orders@corp.example
  sso app update OrderRouting.Settings --users 'CORP\\Orders' --users 'CORP\\Order Tests'
  sso app update Mainframe --allow-tickets yes --one-time-tickets yes --ticket-timeout 10
  sso app update --file order-routing.xml")]
pub(crate) struct UpdateArgs {
    /// Name of the application
    pub(super) name: Option<String>,
    /// XML file of applications; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: Option<PathBuf>,
    /// Free text
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(super) description: Option<String>,
    /// Free text, often a mail address
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(super) contact: Option<String>,
    /// Account of the application users; repeated or separated by ;, replaces the list
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    pub(super) users: Option<Vec<String>>,
    /// Account of the application administrators; repeated or separated by ;, replaces the list
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';', conflicts_with = "file")]
    pub(super) admins: Option<Vec<String>>,
    /// The account that every external user of a host group application stands for
    #[arg(long, value_name = "ACCOUNT", conflicts_with = "file")]
    pub(super) windows_account: Option<String>,
    /// Minutes a ticket is good for here, 1 to 525600; 0 = as the system has it (SSO administrators
    /// set it)
    #[arg(long, value_name = "MINUTES", conflicts_with = "file")]
    pub(super) ticket_timeout: Option<u32>,
    /// Accept accounts without a domain (single machine only)
    #[arg(long, value_name = "yes|no", value_parser = parse_yes, conflicts_with = "file")]
    pub(super) allow_local_accounts: Option<bool>,
    #[command(flatten)]
    pub(super) flags: FlagArgs,
}

/// The words of the reference product and a few more, whatever the case.
pub(crate) fn parse_yes(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Ok(true),
        "no" | "off" | "false" => Ok(false),
        _ => Err("write yes or no".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sso app export > applications.xml
  sso app export OrderRouting.Settings --file order-routing.xml")]
pub(crate) struct ExportArgs {
    /// Names of applications; none = all you administer
    #[arg(value_name = "NAME")]
    pub(in crate::commands) names: Vec<String>,
    /// File to write instead of standard output; an existing one is replaced
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(in crate::commands) file: Option<PathBuf>,
}
