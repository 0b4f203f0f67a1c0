use clap::Parser as _;
use sso_client::MappingSide;

use super::*;
use crate::cli::{Cli, Command};

fn parse(arguments: &[&str]) -> Result<MappingCommand, clap::Error> {
    let arguments = ["sso", "mapping"].iter().chain(arguments);
    let Command::Mapping { command } = Cli::try_parse_from(arguments)?.command else {
        panic!("another command")
    };
    Ok(command)
}

#[test]
fn a_file_excludes_the_rest() {
    for good in [
        &["create", "App", r"D\a", "X1", "--values", "-", "--enable"][..],
        &["create", "Hosts", "", "X1"],
        &["create", "--file", "a.xml", "--enable", "--dry-run"],
        &["delete", "App"],
        &["delete", "App", r"D\a"],
        &["delete", "--file", "a.xml", "--yes"],
    ] {
        assert!(parse(good).is_ok(), "{good:?}: {}", parse(good).unwrap_err());
    }
    for bad in [
        &["create"][..],
        &["create", "App"],
        &["create", "App", r"D\a"],
        &["create", "App", r"D\a", "X1", "--file", "a.xml"],
        &["create", "App", r"D\a", "X1", "--dry-run"],
        &["create", "--file", "a.xml", "--values", "-"],
        &["create", "App", r"D\a", "X1", "--values", "-", "--prompt"],
        &["delete"],
        &["delete", "--file", "a.xml", "--external-user", "X"],
        &["list", "--external-user", "X"],
        &["show", "App", r"D\a", "--external-user", "X"],
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn keys_of_the_command_line() {
    let side = |arguments: &[&str]| {
        let MappingCommand::Show(args) = parse(arguments).unwrap() else { panic!("another") };
        args.key().side
    };
    assert_eq!(side(&["show", "App"]), MappingSide::Own);
    assert_eq!(side(&["show", "App", r"D\a"]), MappingSide::Account(r"D\a".into()));
    let external = side(&["show", "App", "--external-user", "X"]);
    assert_eq!(external, MappingSide::ExternalUser("X".into()));
}

#[test]
fn states_in_words() {
    let mapping = |enabled, disabled_by_administrator| Mapping {
        enabled,
        disabled_by_administrator,
        ..Mapping::default()
    };
    assert_eq!(state(&mapping(true, false)), "enabled");
    assert_eq!(state(&mapping(false, false)), "disabled");
    assert_eq!(state(&mapping(false, true)), "disabled by an administrator");
    assert_eq!(credentials_cell(&mapping(true, false)), "-");
}
