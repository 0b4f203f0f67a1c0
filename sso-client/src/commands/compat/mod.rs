//! The tools of the reference product, `ssomanage`, `ssoconfig`, `ssoclient` and `ssops` (ESSO.md 11):
//! other front doors to what `sso` does, for scripts that exist.

mod application;
mod apps;
mod client;
mod config;
mod frame;
mod install;
mod manage;
mod mappings;
mod prompt;
mod ps;
mod secret;
mod server;
mod switches;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use clap::{Subcommand, ValueHint};

use self::{
    client::Client,
    config::Config,
    frame::Call,
    manage::Manage,
    ps::Ps,
    switches::{Parsed, Problem, Switch, SwitchSet},
};
use crate::{cli::GlobalArgs, failure::Failure, output::Output};

/// One of the four programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Manage,
    Config,
    Client,
    Ps,
}

impl Tool {
    pub(super) const ALL: [Self; 4] = [Self::Manage, Self::Config, Self::Client, Self::Ps];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Manage => "ssomanage",
            Self::Config => "ssoconfig",
            Self::Client => "ssoclient",
            Self::Ps => "ssops",
        }
    }

    /// The tool that a program of this name is, whatever the case and folder.
    pub(crate) fn of_program(program: &OsStr) -> Option<Self> {
        let stem = Path::new(program).file_stem()?.to_str()?;
        Self::ALL.into_iter().find(|tool| tool.as_str().eq_ignore_ascii_case(stem))
    }

    /// Every switch, in the order of the manual.
    fn switches(self) -> Vec<&'static Switch> {
        fn of<S: SwitchSet>() -> Vec<&'static Switch> {
            S::ALL.iter().map(|(_, switch)| switch).collect()
        }
        match self {
            Self::Manage => of::<Manage>(),
            Self::Config => of::<Config>(),
            Self::Client => of::<Client>(),
            Self::Ps => of::<Ps>(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CompatCommand {
    /// Administer the system, applications and mappings
    #[command(disable_help_flag = true)]
    Ssomanage(Switches),
    /// Administer one server
    #[command(disable_help_flag = true)]
    Ssoconfig(Switches),
    /// Manage your own mappings
    #[command(disable_help_flag = true)]
    Ssoclient(Switches),
    /// Password synchronisation, which is not part of this version
    #[command(disable_help_flag = true)]
    Ssops(Switches),
    /// Make links named after the four tools, which then start by their own names
    Install {
        /// Folder for the links, such as one of your PATH
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// List every switch of the four tools, and what becomes of it here
    List,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Switches {
    /// A switch and its arguments, like -listapps all; -help lists them
    #[arg(value_name = "SWITCH", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(super) async fn run(
    command: CompatCommand,
    global: &GlobalArgs,
    output: &Output,
) -> Result<u8, Failure> {
    let (tool, switches) = match command {
        CompatCommand::Ssomanage(switches) => (Tool::Manage, switches),
        CompatCommand::Ssoconfig(switches) => (Tool::Config, switches),
        CompatCommand::Ssoclient(switches) => (Tool::Client, switches),
        CompatCommand::Ssops(switches) => (Tool::Ps, switches),
        CompatCommand::Install { folder } => return install::run(&folder, output).map(|()| 0),
        CompatCommand::List => return install::list(output).map(|()| 0),
    };
    Ok(start(tool, &switches.arguments, global).await)
}

/// Runs a tool to its end; everything has been printed when it returns the exit code.
pub(super) async fn start(tool: Tool, arguments: &[OsString], global: &GlobalArgs) -> u8 {
    match tool {
        Tool::Manage => run_as::<Manage>(tool, arguments, global).await,
        Tool::Config => run_as::<Config>(tool, arguments, global).await,
        Tool::Client => run_as::<Client>(tool, arguments, global).await,
        Tool::Ps => run_as::<Ps>(tool, arguments, global).await,
    }
}

async fn run_as<S: SwitchSet>(tool: Tool, arguments: &[OsString], global: &GlobalArgs) -> u8 {
    let (verb, switch, arguments) = match switches::parse::<S>(tool.as_str(), arguments) {
        Ok(Parsed::Help(text)) => return frame::help(&text),
        Ok(Parsed::Run(verb, switch, arguments)) => (verb, switch, arguments),
        Err(Problem { message, usage }) => return frame::usage(&message, &usage),
    };
    let call = Call::new(global, arguments);
    let outcome = match call.begin(switch.state.needs_server()) {
        Ok(()) => verb.run(&call).await.and_then(|()| call.end()),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => frame::failure(&failure, &switches::usage_of(tool.as_str(), switch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_tool_by_its_name() {
        for (program, tool) in [
            ("/usr/local/bin/ssomanage", Some(Tool::Manage)),
            ("SSOConfig.EXE", Some(Tool::Config)),
            ("./ssoclient", Some(Tool::Client)),
            ("ssops", Some(Tool::Ps)),
            ("/usr/bin/sso", None),
            ("sso-server", None),
            ("", None),
        ] {
            assert_eq!(Tool::of_program(OsStr::new(program)), tool, "{program}");
        }
    }

    /// The manual counts 28, 14, 9 and 13 (ESSO.md 11), where a pair like -enablesso/-disablesso is two
    /// and the three forms of -listmappings are one. The reminder has no switch there, only a call (12).
    #[test]
    fn every_documented_switch_is_there() {
        let names = |tool: Tool| {
            tool.switches().iter().map(|switch| switch.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            names(Tool::Manage),
            "server serverall showserver displaydb showdb updatedb enablesso disablesso enable \
             disable tickets setssl createapps updateapps deleteapp enableapp disableapp listapps \
             displayapp purgecache listmappings createmappings deletemappings deletemapping \
             enablemapping disablemapping setcredentials"
        );
        assert_eq!(
            names(Tool::Config),
            "showdb setdb createdb upgradedb generatesecret backupsecret restoresecret \
             displayreminder auditlevel setssl replayfiles syncage remotelookup allowps status"
        );
        assert_eq!(
            names(Tool::Client),
            "server showserver listapps displayapp listmappings setcredentials deletemapping \
             enablemapping disablemapping"
        );
        assert_eq!(
            names(Tool::Ps),
            "list display create update setprops delete enable disable addapp deleteapp reset \
             addtogroup deletefromgroup"
        );
    }
}
