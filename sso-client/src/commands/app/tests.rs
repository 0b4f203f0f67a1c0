use clap::Parser as _;

use super::{shown::pairs, *};
use crate::cli::{Cli, Command};

fn parse(arguments: &[&str]) -> Result<AppCommand, clap::Error> {
    let arguments = ["sso", "app"].iter().chain(arguments);
    let Command::App { command } = Cli::try_parse_from(arguments)?.command else {
        panic!("another command")
    };
    Ok(command)
}

#[test]
fn fields_of_the_command_line() {
    let field =
        |label: &str, masked| Ok(NewField { label: label.to_owned(), masked, synchronized: false });
    assert_eq!(parse_field("Url"), field("Url", false));
    assert_eq!(parse_field("ApiKey:masked"), field("ApiKey", true));
    assert_eq!(parse_field("ApiKey:MASKED"), field("ApiKey", true));
    assert_eq!(parse_field("ns:label"), field("ns:label", false));
    let both = NewField { label: "Password".into(), masked: true, synchronized: true };
    assert_eq!(parse_field("Password:masked:synchronized"), Ok(both.clone()));
    assert_eq!(parse_field("Password:synchronized:Masked"), Ok(both));
    assert!(parse_field(":masked").is_err());
    assert!(parse_field(":masked:synchronized").is_err());
    assert!(parse_field(" ").is_err());
}

#[test]
fn create_makes_field_0_by_itself() {
    let command = parse(&[
        "create",
        "App",
        "--type",
        "config-store",
        "--field",
        "Url",
        "--field",
        "Key:masked",
        "--users",
        r"D\a; D\b",
        "--users",
        r"D\c",
        "--admins",
        r"D\adm",
        "--enable",
    ]);
    let AppCommand::Create(args) = command.unwrap() else { panic!("another command") };
    let application = new_application(args);
    assert_eq!(application.r#type, ApplicationType::ConfigStore as i32);
    assert_eq!(application.user_accounts, [r"D\a", r"D\b", r"D\c"]);
    assert!(application.enabled);
    let fields: Vec<_> = application
        .fields
        .iter()
        .map(|field| (field.ordinal, field.label.as_str(), field.masked))
        .collect();
    assert_eq!(fields, [(0, "reserved", false), (1, "Url", false), (2, "Key", true)]);
}

#[test]
fn a_file_excludes_the_rest() {
    assert!(parse(&["create", "--file", "a.xml"]).is_ok());
    assert!(parse(&["create"]).is_err());
    assert!(parse(&["create", "App", "--file", "a.xml"]).is_err());
    assert!(parse(&["create", "--file", "a.xml", "--enable"]).is_err());
    assert!(parse(&["create", "App", "--administrators-same", "--admins", r"D\a"]).is_err());
    assert!(parse(&["update", "--file", "a.xml", "--contact", "x"]).is_err());
    assert!(parse(&["update"]).is_err());
}

#[test]
fn an_empty_list_of_accounts_can_be_given() {
    let AppCommand::Update(args) = parse(&["update", "App", "--users", ""]).unwrap() else {
        panic!("another command")
    };
    assert_eq!(accounts(args.users.unwrap()), Vec::<String>::new());
}

#[test]
fn what_is_hidden_from_users_is_not_shown_as_empty() {
    let application = Application { sensitive_info_removed: true, ..Application::default() };
    let pairs = pairs(&application);
    assert!(pairs.contains(&("users", "(only administrators see this)".into())));
}

#[test]
fn a_host_group_with_its_flags() {
    let command = parse(&[
        "create",
        "Batch",
        "--type",
        "host-group",
        "--windows-account",
        r"D\svc",
        "--field",
        "Password:masked",
        "--validate-password",
        "OFF",
        "--disable-credential-cache",
        "on",
    ]);
    let AppCommand::Create(args) = command.unwrap() else { panic!("another command") };
    let application = new_application(args);
    assert_eq!(application.windows_account, r"D\svc");
    assert_eq!(application.fields[0].label, "External user");
    assert_eq!(application.validate_password, Some(false));
    assert_eq!(application.disable_credential_cache, Some(true));
    assert_eq!(application.allow_tickets, None, "left to the service");
    let shown = pairs(&application);
    assert!(shown.contains(&("windows account", r"D\svc".into())), "{shown:?}");
    assert!(shown.contains(&("flags on", "disable-credential-cache".into())), "{shown:?}");
    assert!(parse(&["create", "B", "--windows-account", "a", "--users", "b"]).is_err());
    assert!(parse(&["create", "B", "--allow-tickets", "maybe"]).is_err());
}

#[test]
fn an_update_names_what_it_changes() {
    let command = parse(&["update", "App", "--allow-tickets", "yes", "--ticket-timeout", "0"]);
    let AppCommand::Update(args) = command.unwrap() else { panic!("another command") };
    let (application, paths) = changed_application(args);
    assert_eq!(paths, ["ticket_timeout", "allow_tickets"]);
    assert_eq!((application.ticket_timeout, application.allow_tickets), (0, Some(true)));
    let AppCommand::Update(args) = parse(&["update", "App"]).unwrap() else { panic!("another") };
    assert_eq!(changed_application(args).1, Vec::<&str>::new());
}

#[test]
fn json_of_an_application() {
    let application = Application {
        name: "App".into(),
        r#type: 3,
        fields: vec![Field { label: "reserved".into(), ..Field::default() }],
        ..Application::default()
    };
    let json = serde_json::to_value(ApplicationDocument::from(application)).unwrap();
    assert_eq!(json["type"], "config-store");
    assert_eq!(json["fields"][0]["label"], "reserved");
    assert_eq!(json["flags"]["allow_tickets"], false);
    assert_eq!(json["created_at"], serde_json::Value::Null);
}

#[test]
fn a_file_is_offered_where_the_name_is_missing() {
    for verb in ["create", "update"] {
        let error = parse(&[verb]).unwrap_err().to_string();
        assert!(error.contains("<NAME|--file <FILE>>"), "{error}");
        assert!(parse(&[verb, "App", "--file", "a.xml"]).is_err(), "{verb}");
        assert!(parse(&[verb, "--file", "a.xml"]).is_ok(), "{verb}");
    }
}
