use std::path::PathBuf;

use sso_client::{
    v1::ApplicationType,
    xml::{Flag, Kind},
};

use super::*;

const CONFIG_STORE: &[u8] = include_bytes!("../../../tests/data/4-config-store-app.xml");
const UPDATE: &[u8] = include_bytes!("../../../tests/data/extra/update-app.xml");
const HOST_GROUP: &[u8] =
    include_bytes!("../../../tests/data/manual/host-group-by-user-account.xml");
const ADAPTER: &[u8] = include_bytes!("../../../tests/data/extra/password-sync-adapter.xml");

fn only(file: &[u8]) -> ApplicationDefinition {
    parse_applications(file).unwrap().remove(0)
}

fn creation(definition: ApplicationDefinition) -> (Application, Vec<String>) {
    match prepare(Verb::Create, definition).unwrap() {
        (Request::Create(application), notes) => (application, notes),
        (Request::Update(..), _) => panic!("not a creation"),
    }
}

fn created(file: &[u8]) -> (Application, Vec<String>) {
    creation(only(file))
}

fn updated(file: &[u8]) -> (Application, Vec<&'static str>, Vec<String>) {
    match prepare(Verb::Update, only(file)).unwrap() {
        (Request::Update(application, paths), notes) => (application, paths, notes),
        (Request::Create(..), _) => panic!("not an update"),
    }
}

fn refused(verb: Verb, file: &[u8]) -> Failure {
    prepare(verb, only(file)).err().unwrap()
}

#[test]
fn a_config_store_from_a_file() {
    let (application, notes) = created(CONFIG_STORE);
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(application.r#type, i32::from(ApplicationType::ConfigStore));
    assert_eq!(application.user_accounts, [r"CONTOSO\BizTalk Application Users"]);
    assert!(application.enabled && !application.administrators_same);
    let labels: Vec<_> = application.fields.iter().map(|f| (f.ordinal, f.label.as_str())).collect();
    assert_eq!(labels[..2], [(0, "reserved"), (1, "RoutingServiceUrl")]);
}

#[test]
fn every_type_gets_its_type_and_its_flags() {
    let of = |file: &[u8]| -> Vec<Application> {
        parse_applications(file).unwrap().into_iter().map(|one| creation(one).0).collect()
    };
    let payroll = &of(include_bytes!("../../../tests/data/1-individual-app.xml"))[0];
    assert_eq!(payroll.r#type, i32::from(ApplicationType::Individual));
    assert_eq!((payroll.allow_tickets, payroll.host_initiated), (Some(true), Some(false)));
    assert_eq!(payroll.restrict_mapping_create, None, "the service knows the default");

    let warehouse = &of(include_bytes!("../../../tests/data/2-group-app.xml"))[0];
    assert_eq!(warehouse.r#type, i32::from(ApplicationType::Group));
    assert_eq!(warehouse.user_accounts.len(), 2);
    assert!(warehouse.administrators_same);

    let host = of(include_bytes!("../../../tests/data/3-host-initiated-apps.xml"));
    assert_eq!((host[0].r#type, host[1].r#type), (1, 4));
    assert_eq!((host[0].windows_initiated, host[0].host_initiated), (Some(true), Some(true)));
    assert_eq!(host[1].windows_account, r"CONTOSO\svc-hostbatch");
    assert_eq!(host[1].user_accounts, Vec::<String>::new());
}

#[test]
fn the_account_of_a_host_group_may_stand_among_the_users() {
    let (application, _) = created(HOST_GROUP);
    assert_eq!(application.windows_account, r"NORTHWIND\svc-tides");
    assert_eq!(application.user_accounts, Vec::<String>::new());
    let (application, paths, _) = updated(HOST_GROUP);
    assert!(paths.contains(&"windows_account") && !paths.contains(&"user_accounts"), "{paths:?}");
    assert_eq!(application.windows_account, r"NORTHWIND\svc-tides");

    let two = String::from_utf8(HOST_GROUP.to_vec()).unwrap().replace("svc-tides", r"a;N\b");
    let failure = refused(Verb::Create, two.as_bytes());
    assert!(failure.message().contains("exactly one"), "{}", failure.message());
    let Failure::Client(error) = failure else { panic!("{failure:?}") };
    assert_eq!(error.refusal().and_then(|refusal| refusal.event), Some(10846));
}

#[test]
fn an_adapter_is_refused_and_says_why() {
    for verb in [Verb::Create, Verb::Update] {
        let failure = refused(verb, ADAPTER);
        assert_eq!((failure.exit_code(), failure.kind()), (1, "precondition"));
        assert!(failure.message().contains("password synchronisation"));
    }
}

#[test]
fn an_administrator_is_told_what_is_ignored() {
    let file = b"<sso><application name='My App'><appTicketTimeout>3</appTicketTimeout>\
        <field ordinal='0' label='a'/></application></sso>";
    let (application, notes) = created(file);
    assert_eq!(application.name, "My App");
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("a space") && notes[1].contains("on update only"));
}

#[test]
fn an_update_changes_what_the_file_has() {
    let (application, mut paths, notes) = updated(UPDATE);
    assert_eq!((application.name.as_str(), application.ticket_timeout), ("MainframePayroll", 30));
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "administrator_accounts",
            "allow_tickets",
            "contact",
            "description",
            "enabled",
            "ticket_timeout",
            "timeout_tickets",
            "user_accounts",
            "validate_tickets",
        ]
    );
    assert_eq!(notes, Vec::<String>::new());

    let file = b"<sso><application name='A'><contact/><field ordinal='0' label='a'/>\
          <flags configStoreApp='no' adminAccountSame='no' windowsCreds='no'/></application></sso>";
    let (_, paths, notes) = updated(file);
    assert_eq!(paths, ["windows_credentials", "contact"], "the service says that it is fixed");
    assert_eq!(notes.len(), 3, "{notes:?}");

    assert_eq!(refused(Verb::Update, b"<sso><application name='A'/></sso>").exit_code(), 2);
}

/// What the service answers has every flag of the type set.
fn answered(mut application: Application) -> Application {
    let individual = application.r#type == i32::from(ApplicationType::Individual);
    let group = application.r#type == i32::from(ApplicationType::Group);
    let host_group = application.r#type == i32::from(ApplicationType::HostGroup);
    let default = |slot: &mut Option<bool>, on: bool| *slot = Some(slot.unwrap_or(on));
    default(&mut application.windows_initiated, individual || group);
    default(&mut application.host_initiated, host_group);
    default(&mut application.validate_password, individual || host_group);
    default(&mut application.validate_tickets, individual || group);
    default(&mut application.timeout_tickets, individual || group);
    for slot in [
        &mut application.allow_tickets,
        &mut application.one_time_tickets,
        &mut application.require_ticket_audience,
        &mut application.disable_credential_cache,
        &mut application.restrict_mapping_create,
        &mut application.windows_credentials,
        &mut application.restricted_credentials,
        &mut application.direct_password_sync,
    ] {
        default(slot, false);
    }
    application
}

#[test]
fn what_is_exported_creates_the_same() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
    let files = [
        "1-individual-app.xml",
        "2-group-app.xml",
        "3-host-initiated-apps.xml",
        "4-config-store-app.xml",
        "manual/create-individual.xml",
        "manual/create-older.xml",
        "manual/host-group-by-user-account.xml",
        "manual/individual-host-only.xml",
        "manual/older-spellings.xml",
    ];
    for file in files {
        for mut definition in read(&folder.join(file)).unwrap() {
            for extra in [Flag::OneTimeTickets, Flag::RequireTicketAudience] {
                definition.flags.set(extra, definition.kind() == Kind::Individual);
            }
            let application = answered(creation(definition).0);
            let xml = as_xml(vec![application.clone()]).unwrap();
            assert_eq!(answered(created(xml.as_bytes()).0), application, "{file}");
        }
    }
}

#[test]
fn what_is_exported_has_the_ticket_timeout_for_an_update() {
    let application =
        Application { name: "A".into(), ticket_timeout: 30, ..Application::default() };
    let xml = as_xml(vec![application]).unwrap();
    let (application, paths, _) = updated(xml.as_bytes());
    assert!(paths.contains(&"ticket_timeout"));
    assert_eq!(application.ticket_timeout, 30);
}

#[test]
fn an_export_without_accounts_is_refused() {
    let application = Application { sensitive_info_removed: true, ..Application::default() };
    assert_eq!(as_xml(vec![application]).unwrap_err().exit_code(), 1);
    let application =
        Application { user_accounts: vec![r"D\a;b".into()], ..Application::default() };
    assert!(as_xml(vec![application]).unwrap_err().message().contains("';'"));
}

#[test]
fn a_refusal_names_the_application_once() {
    let message = |text: &str| {
        let refusal = Refusal {
            reason: "FIELDS_INVALID".to_owned(),
            event: None,
            message: text.to_owned(),
            request_id: String::new(),
        };
        naming("Orders", Failure::Client(ClientError::Invalid(refusal))).message()
    };
    assert_eq!(message("2 fields, not 1"), "application 'Orders': 2 fields, not 1");
    assert_eq!(message("there is \"Orders\" already"), "there is \"Orders\" already");
}
