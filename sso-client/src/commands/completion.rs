//! Completion scripts and manual pages, made from the tree of commands.

use std::{io, path::PathBuf};

use clap::{Args, ValueHint};
use clap_complete::Shell;

use crate::{cli, failure::Failure};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sso completion bash > ~/.local/share/bash-completion/completions/sso"
)]
pub(crate) struct CompletionArgs {
    /// The shell the script is for
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages; made where missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

pub(crate) fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "sso", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)
        .map_err(|error| Failure::io("standard output", error))
}

pub(crate) fn manual(args: &ManArgs) -> Result<(), Failure> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(cli::command(), folder))
        .map_err(|error| Failure::io(folder.display().to_string(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_manual_page_for_each_command() {
        let folder = tempfile::tempdir().unwrap();
        let args = ManArgs { folder: folder.path().join("man1") };
        manual(&args).unwrap();
        for page in ["sso.1", "sso-app-create.1", "sso-config-set.1", "sso-status.1"] {
            assert!(args.folder.join(page).is_file(), "{page}");
        }
    }
}
