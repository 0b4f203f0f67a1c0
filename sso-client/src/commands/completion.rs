//! Completion scripts and manual pages, made from the tree of commands.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{Args, ValueHint, builder::Resettable};
use clap_complete::Shell;
use clap_mangen::Man;

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
        .and_then(|()| {
            let mut command = cli::command().disable_help_subcommand(true);
            command.build();
            write_pages(&command, folder)
        })
        .map_err(|error| Failure::io(folder.display().to_string(), error))
}

/// The page of the command and of all below it.
fn write_pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, folder)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone().after_help(Resettable::Reset));
    let mut page = Vec::new();
    man.render(&mut page)?;
    page.extend(closing_sections(&after).into_bytes());
    std::fs::write(folder.join(man.get_filename()), page)
}

/// The text behind the help as sections NOTES and EXAMPLES, its lines kept as they are.
fn closing_sections(text: &str) -> String {
    let (mut notes, mut examples) = (Vec::new(), Vec::new());
    let mut in_examples = false;
    for line in text.lines() {
        match line {
            "Example:" | "Examples:" => in_examples = true,
            line => {
                // Examples are indented; what is not is said of something else.
                in_examples &= line.is_empty() || line.starts_with(' ');
                if in_examples { &mut examples } else { &mut notes }.push(line);
            }
        }
    }
    section("NOTES", &notes) + &section("EXAMPLES", &examples)
}

fn section(title: &str, lines: &[&str]) -> String {
    let text = lines.join("\n");
    if text.trim().is_empty() {
        return String::new();
    }
    let lines: Vec<_> = text.trim_end().lines().map(as_roff).collect();
    format!(".SH {title}\n.nf\n{}\n.fi\n", lines.join("\n"))
}

/// One line of text that roff shows character by character.
fn as_roff(line: &str) -> String {
    // A control character at the start of a line would make it a request.
    let mut escaped = if line.starts_with(['.', '\'']) { r"\&" } else { "" }.to_owned();
    for character in line.chars() {
        match character {
            '\\' => escaped.push_str(r"\e"),
            '-' => escaped.push_str(r"\-"),
            '\'' => escaped.push_str(r"\(aq"),
            '`' => escaped.push_str(r"\(ga"),
            '^' => escaped.push_str(r"\(ha"),
            '~' => escaped.push_str(r"\(ti"),
            other => escaped.push(other),
        }
    }
    escaped
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
        let page = std::fs::read_to_string(args.folder.join("sso-app-create.1")).unwrap();
        assert!(!page.contains(".SH EXTRA"), "{page}");
        let examples = page.split_once(".SH EXAMPLES\n.nf\n").unwrap().1;
        assert!(examples.contains("\n  sso app create \\-\\-file order\\-routing.xml\n.fi\n"));
        assert!(examples.contains(r"--users \(aqCORP\eOrders\(aq".replace('-', r"\-").as_str()));
    }

    #[test]
    fn what_stands_behind_the_help_becomes_sections() {
        let text = "First.\n.x\n\nExamples:\n  sso a\n  sso b\nLast.";
        assert_eq!(
            closing_sections(text),
            ".SH NOTES\n.nf\nFirst.\n\\&.x\n\nLast.\n.fi\n\
             .SH EXAMPLES\n.nf\n  sso a\n  sso b\n.fi\n"
        );
        assert_eq!(closing_sections(""), "");
    }
}
