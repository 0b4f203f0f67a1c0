//! The command line: global options and the tree of commands.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use sso_client::Overrides;
use sso_core::{exit::Exit, tls::ListSource};

use crate::commands::{
    AppCommand, AuditCommand, CertArgs, CompatCommand, CompletionArgs, ConfigCommand,
    CredentialsCommand, DevArgs, ExplainArgs, LogonArgs, ManArgs, MappingCommand, PrincipalCommand,
    SecretArgs, ServerCommand, SystemCommand, TicketCommand,
};

const AFTER_HELP: &str = "\
Where the service is, and who you are, comes from (first wins, each item on its own):
  1. --addr, --ca, --cert, --key, --crl, --token-file
  2. the profile named by --profile or SSO_PROFILE
  3. SSO_ADDR, SSO_CA, SSO_CERT, SSO_KEY, SSO_CRL, SSO_TOKEN_FILE
  4. the profile named 'default' in the profiles file
  5. the address alone: the server that 'ssomanage -server' or '-serverall' remembers, in
     ~/.config/sso/server or /etc/sso/server
The profiles file is $SSO_CONFIG, $XDG_CONFIG_HOME/sso/profiles.toml or
~/.config/sso/profiles.toml:
  version = 1
  default = \"admin\"
  [profile.admin]
  addr = \"https://sso.example:7400\"
  ca = \"ca.crt\"          # relative to the profiles file
  cert = \"admin.crt\"
  key = \"admin.key\"      # readable by its owner only
  crl = \"ca.crl\"        # optional: revocation lists, files and URLs: [\"a.crl\", \"http://…\"]
  master = \"unix:///run/sso-master/admin.sock\"   # for 'sso secret', also SSO_MASTER

Exit codes: 0 done, 1 refused, 2 usage or malformed file, 64 settings, 69 unavailable, 77 denied.

Examples:
  sso status
  sso app create --file order-routing.xml
  sso config set OrderRouting.Settings ConfigProperties --values - < values.json
  sso config get OrderRouting.Settings ConfigProperties --output json
  sso mapping create Mainframe 'CORP\\asmith' ASM01 --values - --enable < credentials.json
  sso credentials get Mainframe --output json
  sso secret status
  sso ticket issue | sso --profile host ticket redeem Mainframe --sender 'CORP\\asmith'";

/// Command line of the Enterprise SSO secret store.
#[derive(Debug, Parser)]
#[command(
    name = "sso",
    version,
    about = "Administers and reads the Enterprise SSO secret store",
    after_help = AFTER_HELP,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

// No help on the variants: it would make every page of help twice as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Profile of the profiles file [env: SSO_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Address of the server, https://HOST:PORT or unix:///PATH [env: SSO_ADDR]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) addr: Option<String>,
    /// PEM file of the certificate authority of the server [env: SSO_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of your certificate [env: SSO_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file of your private key [env: SSO_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Revocation list of an authority, again for each; without any none are checked [env: SSO_CRL]
    #[arg(long, global = true, value_name = "FILE|URL")]
    pub(crate) crl: Vec<ListSource>,
    /// File with a bearer token, in place of a certificate [env: SSO_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to print results; with json errors are JSON too, on standard error
    #[arg(long, short = 'o', global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Longest time a call may take, like 500ms, 10s or 2m [default: 10s]
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// No colours, whatever the terminal
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// No notes and no progress on standard error; errors and warnings stay
    #[arg(long, short = 'q', global = true)]
    pub(crate) quiet: bool,
}

impl GlobalArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            profile: self.profile.clone(),
            addr: self.addr.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            crl: self.crl.clone(),
            token_file: self.token_file.clone(),
            master: None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the server that answers, its keys and who you are to it
    Status,
    /// Affiliate applications: create, read, change, delete, export
    App {
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Configurations of config-store applications: set, get, history, watch
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Mappings between accounts and external users, and their credentials
    Mapping {
        #[command(subcommand)]
        command: MappingCommand,
    },
    /// The credentials mapped to your own account
    Credentials {
        #[command(subcommand)]
        command: CredentialsCommand,
    },
    /// Tickets: issue, redeem, inspect
    Ticket {
        #[command(subcommand)]
        command: TicketCommand,
    },
    /// Find the account of an external user, with a ticket and an assertion for it
    Logon(LogonArgs),
    /// Tell why something is allowed or denied
    Explain(ExplainArgs),
    /// The record of every change and every reveal
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Who had which account name first, where the source names accounts for ever
    Principal {
        #[command(subcommand)]
        command: PrincipalCommand,
    },
    /// The master secret: rotate, back up, restore, promote
    Secret(SecretArgs),
    /// The servers of the system
    Server {
        #[command(subcommand)]
        command: ServerCommand,
    },
    /// The system as a whole: global information, enable, disable
    System {
        #[command(subcommand)]
        command: SystemCommand,
    },
    /// The tools of the reference product: ssomanage, ssoconfig, ssoclient, ssops
    Compat {
        #[command(subcommand)]
        command: CompatCommand,
    },
    /// Start a throw-away master and server to try things with
    Dev(DevArgs),
    /// A small certificate authority for an installation by hand
    Cert(CertArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write manual pages into a folder
    Man(ManArgs),
}

/// The whole tree, for completions and manual pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments of the process. `Err` is the exit code after everything has been printed.
pub(crate) fn parse() -> Result<Cli, u8> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    Cli::try_parse_from(&arguments).map_err(|error| {
        if error.use_stderr() && wants_json(&arguments) {
            crate::output::usage_as_json(&error.render().to_string());
        } else {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
        }
        if error.use_stderr() { Exit::Usage.code() } else { Exit::Ok.code() }
    })
}

/// Whether JSON was asked for on a command line that does not parse.
fn wants_json(arguments: &[OsString]) -> bool {
    let mut texts = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(text) = texts.next() {
        match text {
            "--" => return false,
            "--output=json" | "-ojson" | "-o=json" => return true,
            "--output" | "-o" => return texts.next() == Some("json"),
            _ => {}
        }
    }
    false
}

/// A whole number with a unit: `ms`, `s`, `m`, `h` or `d`; without one seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write it like 500ms, 10s or 2m".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => return Err(format!("unknown unit '{unit}'; use ms, s, m, h or d")),
    };
    match milliseconds {
        Some(0) => Err("it must be more than nothing".to_owned()),
        Some(number) if number <= 3_153_600_000_000 => Ok(Duration::from_millis(number)),
        Some(_) | None => Err("more than a hundred years".to_owned()),
    }
}

#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn global_options_work_behind_a_command() {
        let cli = Cli::parse_from(["sso", "status", "--profile", "user", "-o", "json"]);
        assert_eq!(cli.global.profile.as_deref(), Some("user"));
        assert_eq!(cli.global.output, Format::Json);
    }

    #[test]
    fn json_is_recognised_on_a_broken_command_line() {
        let check = |arguments: &[&str]| {
            wants_json(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
        };
        assert!(check(&["sso", "nonsense", "--output", "json"]));
        assert!(check(&["sso", "--output=json", "nonsense"]));
        assert!(!check(&["sso", "dev", "--", "x", "--output=json"]));
        assert!(!check(&["sso", "nonsense", "--output", "table"]));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "0", "-1s", "1 s", "1w", "99999999999999999999", "9999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
