use super::*;

const CONFIG_STORE: &[u8] = include_bytes!("../../../testdata/config-store-app.xml");
const UPDATE: &[u8] = include_bytes!("../../../testdata/update-app.xml");

fn only(file: &[u8]) -> ApplicationDefinition {
    parse_applications(file).unwrap().remove(0)
}

fn created(file: &[u8]) -> (Application, Vec<String>) {
    match creation(only(file)).unwrap() {
        (Request::Create(application), notes) => (application, notes),
        _ => panic!("not a creation"),
    }
}

fn updated(file: &[u8]) -> (Application, Vec<&'static str>, Vec<String>) {
    match change(only(file)).unwrap() {
        (Request::Update(application, paths), notes) => (application, paths, notes),
        _ => panic!("not an update"),
    }
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
fn the_other_types_get_their_type() {
    let types = |file: &[u8]| -> Vec<i32> {
        let requests = parse_applications(file).unwrap().into_iter().map(creation);
        requests
            .map(|request| match request.unwrap().0 {
                Request::Create(application) => application.r#type,
                Request::Update(..) => panic!("not a creation"),
            })
            .collect()
    };
    assert_eq!(types(include_bytes!("../../../testdata/individual-app.xml")), [1]);
    assert_eq!(types(include_bytes!("../../../testdata/group-app.xml")), [2]);
    assert_eq!(types(include_bytes!("../../../testdata/host-initiated-apps.xml")), [1, 4]);
    let adapter = only(include_bytes!("../../../testdata/password-sync-adapter.xml"));
    let failure = creation(adapter).err().unwrap();
    assert_eq!((failure.exit_code(), failure.kind()), (1, "precondition"));
}

#[test]
fn an_administrator_is_told_what_is_ignored() {
    let file = b"<sso><application name='My App'><appTicketTimeout>3</appTicketTimeout>\
        <field ordinal='0' label='a' synchronized='yes'/>\
        <flags configStoreApp='yes' windowsInitiatedSSO='yes' allowTickets='no' \
        validateTickets='no' disableCredCache='yes'/></application></sso>";
    let (_, notes) = created(file);
    assert_eq!(notes.len(), 5, "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("'validateTickets'")));
    assert!(notes.iter().any(|note| note.contains("'disableCredCache'")));
}

#[test]
fn an_update_changes_what_the_file_has() {
    let (application, paths, notes) = updated(UPDATE);
    assert_eq!(application.name, "MainframePayroll");
    assert_eq!(
        paths,
        ["description", "contact", "user_accounts", "administrator_accounts", "enabled"]
    );
    assert_eq!(notes.len(), 4, "{notes:?}");

    let (_, paths, notes) = updated(
        b"<sso><application name='A'><contact/><field ordinal='0' label='a'/>\
          <flags configStoreApp='yes'/></application></sso>",
    );
    assert_eq!((paths, notes.len()), (vec!["contact"], 2));

    let nothing = only(b"<sso><application name='A'/></sso>");
    assert_eq!(change(nothing).err().unwrap().exit_code(), 2);
}

#[test]
fn what_is_exported_creates_the_same() {
    for file in [CONFIG_STORE, include_bytes!("../../../testdata/older-spellings.xml")] {
        let (application, _) = created(file);
        let xml = as_xml(vec![application.clone()]).unwrap();
        assert_eq!(created(xml.as_bytes()).0, application);
    }
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
