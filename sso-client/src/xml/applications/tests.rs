use super::*;

fn read(file: &[u8]) -> Vec<ApplicationDefinition> {
    parse_applications(file).unwrap()
}

#[test]
fn the_sample_files() {
    let app = &read(include_bytes!("../../../tests/data/1-individual-app.xml"))[0];
    assert_eq!((app.kind(), app.fields.len()), (Kind::Individual, 2));
    assert!(app.flags.is_on(Flag::AllowTickets) && app.fields[1].masked);

    let app = &read(include_bytes!("../../../tests/data/2-group-app.xml"))[0];
    assert_eq!(app.kind(), Kind::Group);
    let users = [r"CONTOSO\WarehouseLeads", r"CONTOSO\WarehouseStaff"].map(str::to_owned);
    assert_eq!(app.user_accounts.as_deref(), Some(&users[..]));
    assert_eq!(app.administrator_accounts, None);

    let apps = read(include_bytes!("../../../tests/data/3-host-initiated-apps.xml"));
    assert_eq!(
        apps.iter().map(ApplicationDefinition::kind).collect::<Vec<_>>(),
        [Kind::Individual, Kind::HostGroup]
    );
    assert_eq!(apps[1].windows_account.as_deref(), Some(r"CONTOSO\svc-hostbatch"));

    let app = &read(include_bytes!("../../../tests/data/4-config-store-app.xml"))[0];
    assert_eq!((app.kind(), app.name.as_str()), (Kind::ConfigStore, "OrderRouting.Settings"));
    assert_eq!(app.fields.iter().filter(|field| field.masked).count(), 2);
    assert!(app.flags.is_on(Flag::EnableApp));

    let app = &read(include_bytes!("../../../tests/data/extra/update-app.xml"))[0];
    assert_eq!((app.ticket_timeout, app.fields.len()), (Some(30), 0));

    let app = &read(include_bytes!("../../../tests/data/extra/password-sync-adapter.xml"))[0];
    assert_eq!(app.kind(), Kind::Adapter);
    assert_eq!(app.computer.as_deref(), Some("sso03.contoso.example"));
}

/// Documents in the shapes that the reference product's manual and its samples have.
#[test]
fn the_shapes_of_the_manual() {
    let app = &read(include_bytes!("../../../tests/data/manual/create-individual.xml"))[0];
    assert_eq!((app.kind(), app.name.as_str()), (Kind::Individual, "HarbourLedger"));
    assert_eq!(app.user_accounts.as_deref(), Some(&[r"NORTHWIND\LedgerClerks".to_owned()][..]));
    assert_eq!(app.flags.value(Flag::AdminAccountSame), Some(false));

    let app = &read(include_bytes!("../../../tests/data/manual/create-older.xml"))[0];
    assert_eq!(app.kind(), Kind::Group);
    assert_eq!(
        app.administrator_accounts.as_deref(),
        Some(&[r"NORTHWIND\ScaleAdmins".to_owned()][..])
    );
    assert_eq!(app.flags.value(Flag::TimeoutTickets), Some(true));
    assert_eq!(app.flags.value(Flag::AllowLocalAccounts), Some(false));

    let app = &read(include_bytes!("../../../tests/data/manual/host-group-by-user-account.xml"))[0];
    assert_eq!((app.kind(), app.windows_account.as_deref()), (Kind::HostGroup, None));

    let app = &read(include_bytes!("../../../tests/data/manual/individual-host-only.xml"))[0];
    assert_eq!(app.kind(), Kind::Individual);
    assert_eq!(app.flags.value(Flag::WindowsInitiatedSso), Some(false));
    assert_eq!(app.flags.value(Flag::HostInitiatedSso), None);

    let app = &read(include_bytes!("../../../tests/data/manual/name-with-a-space.xml"))[0];
    assert_eq!((app.kind(), app.name.as_str()), (Kind::Individual, "Crane Control"));
    assert!(app.fields[1].synchronized);

    let app = &read(include_bytes!("../../../tests/data/manual/update.xml"))[0];
    assert_eq!((app.contact.as_deref(), app.administrator_accounts.as_deref()), (None, None));
}

#[test]
fn older_spellings_and_any_case() {
    let app = &read(include_bytes!("../../../tests/data/manual/older-spellings.xml"))[0];
    assert_eq!(app.name, "LegacyOrders");
    assert_eq!(app.user_accounts.as_deref(), Some(&[r"CONTOSO\OrderUsers".to_owned()][..]));
    assert_eq!(
        app.administrator_accounts.as_deref(),
        Some(&[r"CONTOSO\OrderAdmins".to_owned()][..])
    );
    for (flag, on) in [
        (Flag::ConfigStoreApp, true),
        (Flag::AllowLocalAccounts, true),
        (Flag::AdminAccountSame, false),
        (Flag::TimeoutTickets, true),
        (Flag::EnableApp, true),
    ] {
        assert_eq!(app.flags.value(flag), Some(on), "{flag:?}");
    }
    assert!(!app.fields[0].masked && app.fields[1].masked);
}

#[test]
fn fields_may_stand_in_any_order() {
    let file = "<sso><application name='A'><field label='b' ordinal='1'/>\
                <field label='a' ordinal='0'/></application></sso>";
    let labels: Vec<_> = read(file.as_bytes())[0].fields.iter().map(|f| f.label.clone()).collect();
    assert_eq!(labels, ["a", "b"]);
}

/// Each fault by name, with the place it must be reported at.
#[test]
fn faults() {
    let wrap = |inner: &str| format!("<sso>\n<application name='A'>\n{inner}</application></sso>");
    for (fault, file, expected) in [
        (
            "nothing inside",
            "<sso/>".to_owned(),
            "line 1, column 1: the file holds no <application>",
        ),
        ("other root", "<sos/>".to_owned(), "line 1, column 1: the top element is <sos>"),
        ("root attribute", "<sso a='1'/>".to_owned(), "column 6: unknown attribute 'a' in <sso>"),
        (
            "a file of mappings",
            include_str!("../../../tests/data/5-mappings.xml").to_owned(),
            "column 3: <mapping> stands where only <application> may (this is a file of mappings)",
        ),
        (
            "no name",
            "<sso><application/></sso>".to_owned(),
            "column 6: <application> has no attribute",
        ),
        (
            "blank name",
            "<sso><application name=' '/></sso>".to_owned(),
            "column 19: the name is empty",
        ),
        (
            "name twice",
            "<sso><application name='A'/><application name='a'/></sso>".to_owned(),
            "column 29: application 'a' stands twice",
        ),
        (
            "unknown application attribute",
            "<sso><application name='A' typ='x'/></sso>".to_owned(),
            "column 28: unknown attribute 'typ' in <application>",
        ),
        ("unknown element", wrap("<users/>"), "line 3, column 1: unknown element <users>"),
        ("text", wrap("  stray"), "line 3, column 3: <application> must not contain text"),
        (
            "element twice",
            wrap("<contact/>\n<Contact/>"),
            "line 4, column 1: <Contact> stands twice",
        ),
        (
            "account twice in two spellings",
            wrap("<appUserAccount>D\\u</appUserAccount>\n<userGroup>D\\v</userGroup>"),
            "line 4, column 1: <userGroup> stands twice",
        ),
        ("attribute on text element", wrap("<contact x='1'/>"), "column 10: unknown attribute 'x'"),
        ("element in text element", wrap("<contact><b/></contact>"), "must not contain elements"),
        (
            "misspelt flag",
            wrap("<flags enabelApp='yes'/>"),
            "column 8: unknown attribute 'enabelApp'",
        ),
        ("flag value", wrap("<flags enableApp='true'/>"), "must be yes, no, on or off"),
        (
            "flag twice by spelling",
            wrap("<flags timeoutTickets='yes' ticketTimeout='yes'/>"),
            "line 3, column 29: flag 'timeoutTickets' stands twice",
        ),
        ("flags twice", wrap("<flags/>\n<flags/>"), "line 4, column 1: <flags> stands twice"),
        (
            "flags that exclude each other",
            wrap("<flags groupApp='yes' configStoreApp='yes'/>"),
            "line 2, column 1: flags 'configStoreApp' and 'groupApp' of application 'A' exclude",
        ),
        ("no ordinal", wrap("<field label='a'/>"), "column 1: <field> has no attribute 'ordinal'"),
        ("no label", wrap("<field ordinal='0'/>"), "column 1: <field> has no attribute 'label'"),
        ("negative ordinal", wrap("<field ordinal='-1' label='a'/>"), "must be a whole number"),
        ("empty label", wrap("<field ordinal='0' label=''/>"), "column 20: the label is empty"),
        (
            "ordinal twice",
            wrap("<field ordinal='0' label='a'/>\n<field ordinal='0' label='b'/>"),
            "line 4, column 1: ordinal 0 stands twice",
        ),
        (
            "gap",
            wrap("<field ordinal='0' label='a'/><field ordinal='2' label='b'/>"),
            "line 2, column 1: the ordinals of the fields must count from 0 without a gap; 1 is",
        ),
        (
            "label twice",
            wrap("<field ordinal='0' label='a'/>\n<field ordinal='1' label='A'/>"),
            "line 4, column 1: label 'A' stands twice",
        ),
        (
            "timeout out of range",
            wrap("<appTicketTimeout>525601</appTicketTimeout>"),
            "<appTicketTimeout> must be a whole number from 0 to 525600",
        ),
        (
            "two kinds of users",
            wrap("<windowsAccount>D\\a</windowsAccount><appUserAccount>D\\b</appUserAccount>"),
            "exclude each other",
        ),
        (
            "two synchronized fields",
            wrap(
                "<field ordinal='0' label='a' synchronized='yes'/>\
                 <field ordinal='1' label='b' synchronized='on'/>",
            ),
            "at most one field may be synchronized",
        ),
    ] {
        let error = parse_applications(file.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{fault}: {error}");
    }
}
