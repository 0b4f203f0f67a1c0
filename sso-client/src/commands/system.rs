//! `sso system`: global information and the switch of the whole system.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use serde::Serialize;
use sso_client::{
    v1::GlobalInfo,
    xml::{GlobalInfoUpdate, parse_global_info, write_global_info},
};

use super::{
    Service,
    app::{accounts, parse_yes},
    confirm, read_file,
    shown::{or_dash, yes},
};
use crate::{failure::Failure, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show the global information
    #[command(visible_alias = "show")]
    Info,
    /// Change the global information
    Update(UpdateArgs),
    /// Write the global information as an XML file that update reads
    Export {
        /// File to write instead of standard output; an existing one is replaced
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Enable the whole system
    Enable,
    /// Disable the whole system: everything but its administration is refused, data are kept
    Disable {
        /// Do not ask; without a terminal nothing is asked either
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
The two account lists change only while the system is disabled; you must stay in the new
SSO administrator accounts. A file has the elements of the reference product:
  <sso><globalInfo><ticketTimeout>10</ticketTimeout></globalInfo></sso>

Examples:
  sso system update --file global-info.xml
  sso system update --ticket-timeout 10 --credential-cache-timeout 30
  sso system update --tickets-allowed yes --trusted-hosts 'CORP\\Integration Hosts'
  sso system update --sso-administrators 'CORP\\SSO Administrators'")]
pub(crate) struct UpdateArgs {
    /// XML file with a globalInfo element; only what it holds is changed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "values")]
    file: Option<PathBuf>,
    #[command(flatten)]
    values: UpdateValues,
}

#[derive(Clone, Debug, Args)]
#[group(id = "values", multiple = true)]
struct UpdateValues {
    /// Account of the SSO administrators; may be repeated, replaces the list
    #[arg(long, value_name = "ACCOUNT")]
    sso_administrators: Vec<String>,
    /// Account of the SSO affiliate administrators; may be repeated, replaces the list
    #[arg(long, value_name = "ACCOUNT")]
    affiliate_administrators: Vec<String>,
    /// Records of deleted applications that are kept
    #[arg(long, value_name = "COUNT")]
    audit_deleted_applications: Option<u32>,
    /// Records of deleted mappings that are kept
    #[arg(long, value_name = "COUNT")]
    audit_deleted_mappings: Option<u32>,
    /// Records of credential look-ups that are kept
    #[arg(long, value_name = "COUNT")]
    audit_credential_lookups: Option<u32>,
    /// Minutes a ticket is good for, 1 to 525600
    #[arg(long, value_name = "MINUTES")]
    ticket_timeout: Option<u32>,
    /// Minutes a server keeps sealed credentials in memory, 0 (off) to 525600
    #[arg(long, value_name = "MINUTES")]
    credential_cache_timeout: Option<u32>,
    #[command(flatten)]
    sign_on: SignOnValues,
}

/// What the files of the reference product do not hold.
#[derive(Clone, Debug, Default, Args)]
struct SignOnValues {
    /// Tickets may be issued, and redeemed by applications that allow them
    #[arg(long, value_name = "yes|no", value_parser = parse_yes)]
    tickets_allowed: Option<bool>,
    /// The sender must be the one a ticket was issued to, whatever the application says
    #[arg(long, value_name = "yes|no", value_parser = parse_yes)]
    tickets_validated: Option<bool>,
    /// External users may log on, to applications that allow it
    #[arg(long, value_name = "yes|no", value_parser = parse_yes)]
    host_initiated_allowed: Option<bool>,
    /// Account whose word is taken for who sent a message; repeated or separated by ;, replaces the
    /// list, '' empties it
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';')]
    trusted_hosts: Option<Vec<String>>,
    /// Account that reads every configuration without masked values; as --trusted-hosts
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';')]
    configuration_readers: Option<Vec<String>>,
    /// Account that reads every audit record; as --trusted-hosts
    #[arg(long, value_name = "ACCOUNT", value_delimiter = ';')]
    auditors: Option<Vec<String>>,
}

impl SignOnValues {
    /// Puts what is given into the message, and names it.
    fn apply(self, info: &mut GlobalInfo) -> Vec<&'static str> {
        let paths = [
            ("tickets_allowed", self.tickets_allowed.is_some()),
            ("tickets_validated", self.tickets_validated.is_some()),
            ("host_initiated_allowed", self.host_initiated_allowed.is_some()),
            ("trusted_hosts", self.trusted_hosts.is_some()),
            ("configuration_readers", self.configuration_readers.is_some()),
            ("auditors", self.auditors.is_some()),
        ];
        info.tickets_allowed = self.tickets_allowed.unwrap_or_default();
        info.tickets_validated = self.tickets_validated.unwrap_or_default();
        info.host_initiated_allowed = self.host_initiated_allowed.unwrap_or_default();
        info.trusted_hosts = accounts(self.trusted_hosts.unwrap_or_default());
        info.configuration_readers = accounts(self.configuration_readers.unwrap_or_default());
        info.auditors = accounts(self.auditors.unwrap_or_default());
        paths.into_iter().filter_map(|(path, given)| given.then_some(path)).collect()
    }
}

#[derive(Debug, Serialize)]
struct InfoDocument {
    enabled: bool,
    sso_administrators: Vec<String>,
    affiliate_administrators: Vec<String>,
    secret_server: String,
    audit_deleted_applications: u32,
    audit_deleted_mappings: u32,
    audit_credential_lookups: u32,
    ticket_timeout: u32,
    credential_cache_timeout: u32,
    tickets_allowed: bool,
    tickets_validated: bool,
    host_initiated_allowed: bool,
    trusted_hosts: Vec<String>,
    configuration_readers: Vec<String>,
    auditors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SwitchDocument {
    enabled: bool,
}

pub(crate) async fn run(
    command: SystemCommand,
    service: &Service<'_>,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        SystemCommand::Info => show(service.connect()?.system().info().await?, output),
        SystemCommand::Update(args) => {
            let Changes { info, paths, left_out } = message(args)?;
            let info = service.connect()?.system().update(info, &paths).await?;
            if let Some(left_out) = left_out {
                output.warn(None, &left_out);
            }
            show(info, output)
        }
        SystemCommand::Export { file } => {
            let text = as_xml(service.connect()?.system().info().await?)?;
            match file {
                None => output.raw(&text),
                Some(file) => std::fs::write(&file, text)
                    .map_err(|error| Failure::io(file.display().to_string(), error)),
            }
        }
        SystemCommand::Enable => {
            service.connect()?.system().enable().await?;
            switched(true, output)
        }
        SystemCommand::Disable { yes } => {
            confirm("Disable the whole SSO system for everybody?", yes)?;
            service.connect()?.system().disable().await?;
            switched(false, output)
        }
    }
}

/// What a file can change, and nothing else: the master secret server is not among it.
fn as_xml(info: GlobalInfo) -> Result<String, Failure> {
    let update = GlobalInfoUpdate {
        sso_administrators: Some(info.sso_administrators),
        affiliate_administrators: Some(info.affiliate_administrators),
        secret_server: None,
        audit_deleted_applications: Some(info.audit_deleted_applications),
        audit_deleted_mappings: Some(info.audit_deleted_mappings),
        audit_credential_lookups: Some(info.audit_credential_lookups),
        ticket_timeout: Some(info.ticket_timeout),
        credential_cache_timeout: Some(info.credential_cache_timeout),
    };
    write_global_info(&update)
        .map_err(|error| Failure::refused(error.to_string(), "change the text, then export again"))
}

fn switched(enabled: bool, output: &Output) -> Result<(), Failure> {
    output.document(&SwitchDocument { enabled }, |output| {
        output.line(if enabled { "the system is enabled" } else { "the system is disabled" })
    })
}

/// What a command line or a file asks for.
struct Changes {
    info: GlobalInfo,
    /// What of it is meant.
    paths: Vec<&'static str>,
    left_out: Option<String>,
}

fn message(args: UpdateArgs) -> Result<Changes, Failure> {
    let sign_on = args.values.sign_on.clone();
    let update = changes(args)?;
    let left_out = left_out(&update);
    let (mut info, mut paths) = masked(update)?;
    paths.extend(sign_on.apply(&mut info));
    match paths.is_empty() {
        true => Err(Failure::usage_hint("nothing to change", "see sso system update --help")),
        false => Ok(Changes { info, paths, left_out }),
    }
}

fn changes(args: UpdateArgs) -> Result<GlobalInfoUpdate, Failure> {
    if let Some(file) = &args.file {
        let bytes = read_file(file)?;
        return parse_global_info(&bytes).map_err(|error| Failure::xml(file, &error));
    }
    let list = |accounts: Vec<String>| Some(accounts).filter(|accounts| !accounts.is_empty());
    let values = args.values;
    Ok(GlobalInfoUpdate {
        sso_administrators: list(values.sso_administrators),
        affiliate_administrators: list(values.affiliate_administrators),
        secret_server: None,
        audit_deleted_applications: values.audit_deleted_applications,
        audit_deleted_mappings: values.audit_deleted_mappings,
        audit_credential_lookups: values.audit_credential_lookups,
        ticket_timeout: values.ticket_timeout,
        credential_cache_timeout: values.credential_cache_timeout,
    })
}

/// What a file names and is not applied; the rest of the file is.
pub(super) fn left_out(update: &GlobalInfoUpdate) -> Option<String> {
    let host = update.secret_server.as_deref()?;
    Some(format!(
        "<secretServer> is left out: the master secret server is not '{host}' by this file; each \
         server learns it from [master] url of its own settings"
    ))
}

/// The part of the message that a file may hold, and the paths of what it changes. A file that holds
/// the master secret server and nothing else is refused: nothing of it can be applied.
pub(super) fn masked(update: GlobalInfoUpdate) -> Result<(GlobalInfo, Vec<&'static str>), Failure> {
    let (secret_server, update) =
        (update.secret_server.is_some(), GlobalInfoUpdate { secret_server: None, ..update });
    if secret_server && update == GlobalInfoUpdate::default() {
        return Err(Failure::refused(
            "the master secret server is not part of what can be updated",
            "each server learns it from [master] url of its own settings: change that, then restart \
             the server",
        ));
    }
    let paths: Vec<_> = [
        ("sso_administrators", update.sso_administrators.is_some()),
        ("affiliate_administrators", update.affiliate_administrators.is_some()),
        ("audit_deleted_applications", update.audit_deleted_applications.is_some()),
        ("audit_deleted_mappings", update.audit_deleted_mappings.is_some()),
        ("audit_credential_lookups", update.audit_credential_lookups.is_some()),
        ("ticket_timeout", update.ticket_timeout.is_some()),
        ("credential_cache_timeout", update.credential_cache_timeout.is_some()),
    ]
    .into_iter()
    .filter_map(|(path, given)| given.then_some(path))
    .collect();
    let info = GlobalInfo {
        sso_administrators: update.sso_administrators.unwrap_or_default(),
        affiliate_administrators: update.affiliate_administrators.unwrap_or_default(),
        audit_deleted_applications: update.audit_deleted_applications.unwrap_or_default(),
        audit_deleted_mappings: update.audit_deleted_mappings.unwrap_or_default(),
        audit_credential_lookups: update.audit_credential_lookups.unwrap_or_default(),
        ticket_timeout: update.ticket_timeout.unwrap_or_default(),
        credential_cache_timeout: update.credential_cache_timeout.unwrap_or_default(),
        ..GlobalInfo::default()
    };
    Ok((info, paths))
}

fn show(info: GlobalInfo, output: &Output) -> Result<(), Failure> {
    let info = InfoDocument {
        enabled: info.enabled,
        sso_administrators: info.sso_administrators,
        affiliate_administrators: info.affiliate_administrators,
        secret_server: info.secret_server,
        audit_deleted_applications: info.audit_deleted_applications,
        audit_deleted_mappings: info.audit_deleted_mappings,
        audit_credential_lookups: info.audit_credential_lookups,
        ticket_timeout: info.ticket_timeout,
        credential_cache_timeout: info.credential_cache_timeout,
        tickets_allowed: info.tickets_allowed,
        tickets_validated: info.tickets_validated,
        host_initiated_allowed: info.host_initiated_allowed,
        trusted_hosts: info.trusted_hosts,
        configuration_readers: info.configuration_readers,
        auditors: info.auditors,
    };
    output.document(&info, |output| {
        output.pairs(vec![
            ("enabled", yes(info.enabled)),
            ("SSO administrators", or_dash(&info.sso_administrators.join("; "))),
            ("affiliate administrators", or_dash(&info.affiliate_administrators.join("; "))),
            ("trusted hosts", or_dash(&info.trusted_hosts.join("; "))),
            ("configuration readers", or_dash(&info.configuration_readers.join("; "))),
            ("auditors", or_dash(&info.auditors.join("; "))),
            ("tickets allowed", yes(info.tickets_allowed)),
            ("tickets validated", yes(info.tickets_validated)),
            ("host-initiated allowed", yes(info.host_initiated_allowed)),
            ("master secret server", or_dash(&info.secret_server)),
            ("kept: deleted applications", info.audit_deleted_applications.to_string()),
            ("kept: deleted mappings", info.audit_deleted_mappings.to_string()),
            ("kept: credential look-ups", info.audit_credential_lookups.to_string()),
            ("ticket timeout", format!("{} min", info.ticket_timeout)),
            ("credential cache timeout", format!("{} min", info.credential_cache_timeout)),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_an_update() {
        let info = GlobalInfo {
            sso_administrators: vec![r"CORP\SSO".into(), r"CORP\More & more".into()],
            affiliate_administrators: vec![r"CORP\Affiliates".into()],
            secret_server: "https://master.example:7410".into(),
            ticket_timeout: 10,
            ..GlobalInfo::default()
        };
        let update = parse_global_info(as_xml(info.clone()).unwrap().as_bytes()).unwrap();
        let (read, paths) = masked(update).unwrap();
        assert_eq!(read, GlobalInfo { secret_server: String::new(), ..info });
        assert_eq!(paths.len(), 7);
    }

    #[test]
    fn only_what_is_given_is_in_the_mask() {
        let update = GlobalInfoUpdate { ticket_timeout: Some(10), ..Default::default() };
        let (info, paths) = masked(update).unwrap();
        assert_eq!((info.ticket_timeout, paths), (10, vec!["ticket_timeout"]));
        let mut info = GlobalInfo::default();
        let given = SignOnValues {
            tickets_allowed: Some(false),
            trusted_hosts: Some(vec![String::new()]),
            ..SignOnValues::default()
        };
        assert_eq!(given.apply(&mut info), ["tickets_allowed", "trusted_hosts"]);
        assert_eq!(info.trusted_hosts, Vec::<String>::new(), "emptied");
        assert_eq!(SignOnValues::default().apply(&mut info), Vec::<&str>::new());
    }

    #[test]
    fn the_master_is_not_moved_by_a_file() {
        let update = GlobalInfoUpdate { secret_server: Some("x".into()), ..Default::default() };
        let failure = masked(update.clone()).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.hint().is_some_and(|hint| hint.contains("[master] url")));
        let update = GlobalInfoUpdate { ticket_timeout: Some(3), ..update };
        let left_out = left_out(&update).unwrap();
        assert!(left_out.contains("'x'") && left_out.contains("[master] url"), "{left_out}");
        let (info, paths) = masked(update).unwrap();
        assert_eq!((info.ticket_timeout, paths), (3, vec!["ticket_timeout"]));
        assert_eq!(info.secret_server, "");
    }
}
