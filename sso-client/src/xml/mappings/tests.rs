use proptest::{collection::vec, prelude::*};

use super::*;
use crate::xml::write_mappings;

fn fault(file: &str) -> String {
    parse_mappings(file.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_sample_file() {
    let mappings = parse_mappings(include_bytes!("../../../tests/data/5-mappings.xml")).unwrap();
    let rows: Vec<_> = mappings
        .iter()
        .map(|one| (one.account.as_str(), one.application.as_str(), one.external_user.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            (r"CONTOSO\asmith", "MainframePayroll", "ASM01"),
            (r"CONTOSO\bjones", "MainframePayroll", "BJO07"),
            (r"CONTOSO\WarehouseLeads", "WarehouseErp", "WHLEAD"),
            (r"CONTOSO\WarehouseStaff", "WarehouseErp", "WHSTAFF"),
            (r"CONTOSO\svc-hostbatch", "BatchJobsToFileShare", "JOBA001"),
            (r"CONTOSO\svc-hostbatch", "BatchJobsToFileShare", "JOBA002"),
        ]
    );
    assert_eq!(mappings[0].position, Position { line: 8, column: 3 });
}

#[test]
fn names_in_any_case_and_accounts_without_a_part() {
    let file = "<SSO><Mapping><WINDOWSDOMAIN/><windowsuserid>batch</windowsuserid>\
                <ExternalApplication>A</ExternalApplication><externaluserID>x</externaluserID>\
                </Mapping><mapping><externalApplication>B</externalApplication>\
                <externalUserId>y</externalUserId></mapping></SSO>";
    let mappings = parse_mappings(file.as_bytes()).unwrap();
    assert_eq!((mappings[0].account.as_str(), mappings[1].account.as_str()), ("batch", ""));
}

/// Each fault by name, with the place it must be reported at.
#[test]
fn faults() {
    let wrap = |inner: &str| format!("<sso>\n<mapping>\n{inner}</mapping></sso>");
    let application = "<externalApplication>A</externalApplication>";
    let user = "<externalUserId>x</externalUserId>";
    for (name, file, expected) in [
        ("other root", "<sos/>".to_owned(), "column 1: the top element is <sos>"),
        ("other root, filled", "<sos><mapping/></sos>".to_owned(), "the top element is <sos>"),
        (
            "a file of applications",
            include_str!("../../../tests/data/2-group-app.xml").to_owned(),
            "<application> stands where only <mapping> may (this is a file of applications",
        ),
        ("text between", "<sso>\n x <mapping/></sso>".to_owned(), "line 2, column 2: <sso> must"),
        (
            "text behind",
            wrap(&format!("{application}{user}")).replace("</sso>", "x</sso>"),
            "<sso> must not contain text",
        ),
        ("attribute", "<sso><mapping id='1'/></sso>".to_owned(), "unknown attribute 'id'"),
        ("no application", wrap(user), "line 2, column 1: <mapping> has no <externalApplication>"),
        (
            "no external user",
            wrap(application),
            "line 2, column 1: <mapping> has no <externalUserId>",
        ),
        (
            "empty external user",
            wrap("<externalUserId> </externalUserId>"),
            "line 3, column 1: <externalUserId> is empty",
        ),
        (
            "twice",
            wrap(&format!("{user}\n{user}")),
            "line 4, column 1: <externalUserId> stands twice",
        ),
        ("a password", wrap("<password>canary</password>"), "unknown element <password>"),
        (
            "domain without user",
            wrap(&format!("<windowsDomain>D</windowsDomain>{application}{user}")),
            "has a <windowsDomain> but no <windowsUserId>",
        ),
        (
            "domain in the user",
            wrap("<windowsUserId>D\\u</windowsUserId>"),
            "line 3, column 1: <windowsUserId> must not hold a backslash",
        ),
    ] {
        let error = fault(&file);
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

/// A hundred thousand mappings are half a million elements, more than any tree here may have.
#[test]
fn a_hundred_thousand_mappings() {
    let many: Vec<_> = (0..100_000)
        .map(|number| MappingDefinition {
            position: Position::START,
            account: format!(r"CORP\user{number}"),
            application: "Payroll".to_owned(),
            external_user: format!("EXT{number}"),
        })
        .collect();
    let text = write_mappings(&many).unwrap();
    let read = parse_mappings(text.as_bytes()).unwrap();
    assert_eq!(read.len(), many.len());
    assert_eq!(read[99_999].external_user, "EXT99999");
    assert_eq!(read[99_999].position, Position { line: 3 + 6 * 99_999, column: 3 });
}

#[test]
fn one_mapping_cannot_fill_the_memory() {
    let file = format!("<sso><mapping>{}</mapping></sso>", "<a/>".repeat(60_000));
    assert!(fault(&file).contains("more than 50000 elements"));
    let large = vec![b' '; MAX_MAPPINGS_BYTES + 1];
    let error = parse_mappings(&large).unwrap_err().to_string();
    assert!(error.contains("at most 67108864 are read"), "{error}");
}

prop_compose! {
    fn mapping()(
        account in r"([A-Z]{1,5}\\)?[A-Za-z&<]([A-Za-z &<>\x22']{0,10}[a-z])?",
        application in "[A-Za-z][A-Za-z0-9.&<>\"' ]{0,15}[A-Za-z0-9]",
        external_user in r#"[\PC<>&"'\t\n]{0,20}[a-z]"#,
    ) -> MappingDefinition {
        let external_user = external_user.trim().to_owned();
        MappingDefinition { position: Position::START, account, application, external_user }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(mappings in vec(mapping(), 1..6)) {
        let text = write_mappings(&mappings).unwrap();
        let mut read = parse_mappings(text.as_bytes()).unwrap();
        for one in &mut read {
            one.position = Position::START;
        }
        prop_assert_eq!(read, mappings);
    }

    #[test]
    fn any_bytes_give_mappings_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        let _ = parse_mappings(&bytes);
    }
}
