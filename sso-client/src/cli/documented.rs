//! The documents name no command and no option that is not there: every `sso …` of the README, the
//! documents, the examples, the help and the hints is parsed.

use std::path::{Path, PathBuf};

use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};
use sso_client::{ClientError, Refusal};
use sso_proto::Reason;

use super::{Cli, command};

/// Words of a command line as a shell makes them, up to what ends it.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(mark), letter) if letter == mark => quote = None,
            (Some(_), letter) => word.push(letter),
            (None, '\'' | '"') => (quote, open) = (Some(letter), true),
            (None, ' ' | '[' | ']') => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (None, '|' | '>' | '<' | '&' | ';' | ')') if word != "yes" => break,
            (None, '#') if word.is_empty() => break,
            (None, letter) => word.push(letter),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The command lines of `sso` in a line of shell; the words in front of one do not matter.
fn in_shell(line: &str) -> Vec<Vec<String>> {
    let parts = line.split("| ").flat_map(|part| part.split("&& "));
    parts
        .filter_map(|part| {
            let words = words(part.trim_start());
            let is_program = |word: &String| word == "sso" || word.ends_with("/sso");
            let start = words.iter().position(is_program)?;
            let fits = match words.get(..start)? {
                [] => true,
                [only] => ["show", "if", "$"].contains(&only.as_str()),
                [first, reason] => first == "refused" && is_placeholder(reason),
                _ => false,
            };
            fits.then(|| words.into_iter().skip(start).collect())
        })
        .collect()
}

/// What stands for something that the reader has: CAPITALS, a variable, or left out.
fn is_placeholder(word: &str) -> bool {
    word == "…"
        || word.contains(['$', '|'])
        || word.chars().all(|letter| letter.is_ascii_uppercase() || "_-=/".contains(letter))
}

/// Why a command line is not one of this program. One that is cut short is.
fn problem(words: &[String]) -> Option<String> {
    let error = Cli::try_parse_from(words).err()?;
    // A value that is missing is empty there.
    let stands_for_one = || match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.is_empty() || is_placeholder(value),
        _ => false,
    };
    let kind = error.kind();
    let short = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    let about_value = [ErrorKind::InvalidValue, ErrorKind::ValueValidation].contains(&kind);
    let fine = short.contains(&kind) || (about_value && stands_for_one());
    (!fine).then(|| error.to_string())
}

/// Lines that go on behind a backslash are one.
fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
}

fn of_markdown(text: &str) -> Vec<Vec<String>> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for line in joined(text).lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            found.extend(in_shell(line));
        } else {
            let quoted = line.split('`').skip(1).step_by(2);
            found.extend(quoted.filter(|code| code.starts_with("sso ")).flat_map(in_shell));
        }
    }
    found
}

fn of_script(text: &str) -> Vec<Vec<String>> {
    let lines = joined(text);
    lines.lines().flat_map(|line| in_shell(line.trim_start_matches(['#', ' ']))).collect()
}

fn of_help(command: &clap::Command, found: &mut Vec<Vec<String>>) {
    for text in [command.get_after_help(), command.get_after_long_help()].into_iter().flatten() {
        let text = joined(&text.to_string());
        let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with("sso "));
        // Words about a line stand in a column of their own.
        let lines = lines.filter_map(|line| line.split("  ").next());
        found.extend(lines.flat_map(in_shell));
    }
    command.get_subcommands().for_each(|child| of_help(child, found));
}

fn of_hints() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for reason in Reason::ALL {
        let refusal = Refusal {
            reason: reason.as_str().to_owned(),
            event: None,
            message: String::new(),
            request_id: String::new(),
        };
        let error = ClientError::Fault(refusal);
        let quoted = error.hint().unwrap_or_default().split('\'').skip(1).step_by(2);
        found.extend(quoted.filter(|code| code.starts_with("sso ")).flat_map(in_shell));
    }
    found
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|end| end == ending)).collect()
}

#[test]
fn documents_name_only_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a document");
    let mut sources = Vec::new();
    for path in [vec![root.join("README.md")], files(&root.join("docs"), "md")].concat() {
        sources.push((path.display().to_string(), of_markdown(&read(&path))));
    }
    for path in files(&root.join("examples"), "sh") {
        sources.push((path.display().to_string(), of_script(&read(&path))));
    }
    let mut help = Vec::new();
    of_help(&command(), &mut help);
    sources.push(("the help".to_owned(), help));
    sources.push(("the hints".to_owned(), of_hints()));
    let mut count = 0;
    let mut problems = Vec::new();
    for (source, lines) in &sources {
        count += lines.len();
        for line in lines {
            problems
                .extend(problem(line).map(|why| format!("{source}: {}\n{why}", line.join(" "))));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(count > 150, "only {count} command lines are found");
}

#[test]
fn what_is_not_there_is_found() {
    for bad in [
        "`sso server settings`",
        "`sso app create --colour red`",
        "```sh\nsso --profile admin app creat --file x.xml\n```",
        "```sh\n$ sso ticket issue | sso ticket redem APP\n```",
        "`sso app create APP --type square`",
        "`sso system update --tickets-allowed NAME --nothing`",
    ] {
        let lines = of_markdown(bad);
        assert!(lines.iter().any(|line| problem(line).is_some()), "{bad}: {lines:?}");
    }
    for good in [
        "`sso server set NAME --remote-lookup yes|no`",
        "`sso mapping create`",
        "`sso app update --users`",
        "```sh\nsso config set APP ID --values - \\\n  --prompt Key  # asked for\n```",
        "`sso.v1` and `sso-server`",
    ] {
        let lines = of_markdown(good);
        let problems: Vec<_> = lines.iter().filter_map(|line| problem(line)).collect();
        assert!(problems.is_empty(), "{problems:?}");
    }
    assert_eq!(of_markdown("`sso app list`")[0], ["sso", "app", "list"]);
}
