//! Every switch of the four tools at least once, in one long script.

use std::collections::BTreeSet;

use super::{
    Desk,
    documents::{APPLICATIONS, GLOBAL_INFO, MAPPINGS, UPDATE, mappings},
};

/// Who runs which line, how it ends, and a part of what it says. FILES are paths of the desk.
const SCRIPT: &[(&str, &str, i32, &str)] = &[
    ("admin", "ssomanage -server sso02", 0, "https://sso02:7400"),
    ("admin", "ssomanage -serverall https://sso03.example:7401", 0, "all users"),
    ("admin", "ssomanage -showserver", 0, "https://sso03.example:7401"),
    ("user", "ssoclient -server sso04", 0, "https://sso04:7400"),
    ("user", "ssoclient -showserver", 0, "https://sso04:7400"),
    // the system
    ("admin", "ssomanage -displaydb", 0, "Tickets allowed"),
    ("user", "ssomanage -displaydb", 77, "NOT_SSO_ADMINISTRATOR"),
    ("admin", "ssomanage -showdb", 0, "sqlite"),
    ("admin", "ssoconfig -showdb", 0, "sqlite"),
    ("admin", "ssoconfig -status", 0, "current"),
    ("user", "ssoconfig -status", 0, "Audit level (negative)"),
    ("admin", "ssomanage -updatedb info.xml", 0, "ticketTimeout, credCacheTimeout"),
    ("admin", "ssomanage -updatedb apps.xml", 2, "<application> stands where"),
    ("admin", "ssomanage -enable HISSO", 0, "Host-initiated SSO is allowed."),
    ("admin", "ssomanage -disable hisso", 0, "Host-initiated SSO is not allowed."),
    ("admin", "ssomanage -enable winsync", 1, "password synchronisation"),
    ("admin", "ssomanage -disable extsync", 1, "password synchronisation"),
    ("admin", "ssomanage -enable sso", 2, "Usage: ssomanage -enable hisso"),
    ("admin", "ssomanage -tickets YES off", 0, "Tickets allowed: yes."),
    ("admin", "ssomanage -tickets yes maybe", 2, "'maybe' must be yes, no, on or off"),
    ("user", "ssomanage -tickets no no", 77, "Error code: 0xC0002B01, NOT_SSO_ADMINISTRATOR"),
    ("admin", "ssomanage -setssl yes", 0, "nothing to change"),
    ("admin", "ssomanage -setssl no", 1, "not switched off"),
    ("admin", "ssoconfig -setssl ON", 0, "nothing to change"),
    ("admin", "ssoconfig -setssl off", 1, "not switched off"),
    // applications
    ("admin", "ssomanage -createapps apps.xml", 0, "4 applications created, 0 failed."),
    ("admin", "ssomanage -createapps apps.xml", 1, "0xC0002A00, APPLICATION_EXISTS"),
    ("admin", "ssomanage -updateapps update.xml", 0, "1 application updated, 0 failed."),
    ("app-admin", "ssomanage -disableapp Payroll", 0, "disabled."),
    ("app-admin", "ssomanage -listapps", 0, "(D) Payroll"),
    ("app-admin", "ssomanage -listapps everything", 2, "must be all"),
    ("app-admin", "ssomanage -enableapp PAYROLL", 0, "Application 'Payroll' enabled."),
    ("app-admin", "ssomanage -displayapp Warehouse", 0, "Field 2 : Terminal group"),
    ("app-admin", "ssomanage -purgecache Payroll", 0, "within one poll"),
    ("user", "ssomanage -purgecache Payroll", 77, "NOT_APPLICATION_ADMINISTRATOR"),
    // mappings
    ("app-admin", "ssomanage -createmappings mappings.xml", 0, "4 mappings created, 0 failed."),
    ("app-admin", r"ssomanage -listmappings DEV\user Payroll", 0, r"(D) DEV\user : Payroll"),
    ("app-admin", r"ssomanage -setcredentials DEV\user Payroll", 0, "Credentials set."),
    ("app-admin", r"ssomanage -enablemapping DEV\user Payroll", 0, "Mapping enabled."),
    ("app-admin", r"ssomanage -disablemapping DEV\user Payroll", 0, "Mapping disabled."),
    ("app-admin", r"ssomanage -deletemapping DEV\user Payroll", 0, "Mapping deleted."),
    ("app-admin", r"ssomanage -deletemapping DEV\user Payroll", 0, "There is no such mapping."),
    ("app-admin", r"ssomanage -enablemapping DEV\user Payroll", 1, "0xC0002A05, MAPPING_NOT_FOUND"),
    ("app-admin", "ssomanage -deletemappings mappings.xml", 1, "3 mappings deleted, 1 failed."),
    // the own mappings of a user
    ("user", "ssoclient -listapps", 0, "(E) Payroll"),
    ("user", "ssoclient -displayapp Payroll", 0, "Application name"),
    ("user", "ssoclient -setcredentials Payroll", 0, "created and enabled."),
    ("user", "ssoclient -listmappings", 0, r"(E) DEV\user : Payroll : one"),
    ("user", "ssoclient -disablemapping Payroll", 0, "Mapping disabled."),
    ("user", "ssoclient -enablemapping Payroll", 0, "Mapping enabled."),
    ("user", "ssoclient -deletemapping Payroll", 0, "Mapping deleted."),
    ("user", "ssoclient -setcredentials Batch", 1, "for external users"),
    ("affiliate-admin", "ssomanage -deleteapp Batch", 0, "deleted."),
    ("affiliate-admin", "ssomanage -deleteapp Batch", 0, "There is no application"),
    // one server and the master
    ("admin", "ssoconfig -auditlevel 1 2", 0, "Audit level (positive) : 1"),
    ("admin", "ssoconfig -auditlevel 4 0", 2, "'4' must be 0, 1, 2 or 3"),
    ("app-admin", "ssoconfig -auditlevel 0 0", 77, "NOT_SSO_ADMINISTRATOR"),
    ("admin", "ssoconfig -remotelookup no", 0, "Remote look-up : no"),
    ("admin", "ssoconfig -remotelookup yes", 0, "Remote look-up : yes"),
    ("admin", "ssoconfig -setdb db01 SSODB", 1, "[database] url"),
    ("admin", "ssoconfig -createdb db01 SSODB", 1, "when it starts"),
    ("admin", "ssoconfig -upgradedb", 1, "when it starts"),
    ("admin", "ssoconfig -generatesecret b.bak", 0, "Master secret 2 generated."),
    ("admin", "ssoconfig -generatesecret b.bak", 1, "b.bak exists"),
    ("user", "ssoconfig -backupsecret c.bak", 64, "SSO_MASTER"),
    ("admin", "ssoconfig -backupsecret c.bak", 0, "Backup of 2 master secrets written to"),
    ("user", "ssoconfig -displayreminder c.bak", 0, "Password reminder : the usual one"),
    ("admin", "ssoconfig -displayreminder apps.xml", 2, "is no backup of the master secret"),
    ("admin", "ssoconfig -restoresecret c.bak", 1, "BACKUP_HAS_NOTHING_NEW"),
    ("admin", "ssoconfig -replayfiles -default", 1, "password synchronisation"),
    ("admin", "ssoconfig -syncage", 1, "password synchronisation"),
    ("admin", "ssoconfig -allowps pcns yes", 1, "password synchronisation"),
    // password synchronisation
    ("admin", "ssops -list", 0, "There are no"),
    ("admin", "ssops -display A", 1, "password synchronisation"),
    ("admin", "ssops -create a.xml", 1, "password synchronisation"),
    ("admin", "ssops -update a.xml", 1, "password synchronisation"),
    ("admin", "ssops -setprops A", 1, "password synchronisation"),
    ("admin", "ssops -delete A", 1, "password synchronisation"),
    ("admin", "ssops -enable A", 1, "password synchronisation"),
    ("admin", "ssops -disable A", 1, "password synchronisation"),
    ("admin", "ssops -addapp A B", 1, "password synchronisation"),
    ("admin", "ssops -deleteapp B", 1, "password synchronisation"),
    ("admin", "ssops -reset damping", 1, "password synchronisation"),
    ("admin", "ssops -addtogroup A G", 1, "password synchronisation"),
    ("admin", "ssops -deletefromgroup A G", 1, "password synchronisation"),
    // off and on
    ("admin", "ssomanage -disablesso", 0, "The SSO system is disabled."),
    ("user", "ssoclient -listmappings", 1, "SYSTEM_DISABLED"),
    ("admin", "ssomanage -enablesso", 0, "The SSO system is enabled."),
    ("admin", "ssomanage -nonsense", 2, "there is no switch '-nonsense'"),
    ("admin", "ssomanage", 2, "no switch is given"),
];

#[test]
fn every_switch_does_what_the_list_says() {
    let desk = Desk::open();
    let files = [
        ("apps.xml", APPLICATIONS.to_owned()),
        ("update.xml", UPDATE.to_owned()),
        ("info.xml", GLOBAL_INFO.to_owned()),
        ("mappings.xml", mappings(&MAPPINGS)),
    ];
    let mut files = files.map(|(name, content)| (name, desk.file(name, &content))).to_vec();
    files.extend(["b.bak", "c.bak"].map(|name| (name, desk.path(name))));
    let mut done = BTreeSet::new();
    for (who, line, code, says) in SCRIPT {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| files.iter().find(|(name, _)| *name == word).map_or(word, |(_, path)| path))
            .collect();
        // The mapping of the first is there, so nobody is asked for its external user.
        let exists = line.starts_with("ssomanage -setcredentials");
        let input = match words.get(1).map(|switch| switch.trim_start_matches('-')) {
            Some("generatesecret" | "backupsecret") => {
                "a fine 7-Horse\na fine 7-Horse\nthe usual one\n"
            }
            Some("restoresecret") => "a fine 7-Horse\n",
            _ if exists => "two\n",
            _ => "one\ntwo\n",
        };
        let ran = desk.run(who, &words, input);
        assert_eq!(ran.code, *code, "{ran}");
        let said = format!("{} {}", ran.stdout, ran.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(says), "'{says}' is not in {ran}");
        if *code == 0 {
            let _ = ran.body();
        } else {
            assert!(!ran.stdout.contains("completed successfully"), "{ran}");
        }
        if let [tool, switch, ..] = words.as_slice() {
            done.insert(((*tool).to_owned(), switch.to_lowercase()));
        }
    }
    let listed = desk.system.sso_json("user", &["compat", "list"]);
    for entry in listed["switches"].as_array().expect("a list") {
        let text = |key: &str| entry[key].as_str().expect("text").to_owned();
        let switch = text("switch");
        let switch = switch.split(' ').next().expect("a name").to_owned();
        assert!(done.contains(&(text("tool"), switch)), "never run: {entry}");
    }
}

#[test]
fn tools_start_by_their_own_names_and_below_sso() {
    let desk = Desk::open();
    let help = desk.run("user", &["ssomanage", "-HELP"], "");
    assert_eq!(help.code, 0, "{help}");
    assert!(help.stdout.contains("-setcredentials DOMAIN\\user APP"), "{help}");
    let help = desk.run("user", &["ssoclient", "/?"], "");
    assert!(help.stdout.contains("Usage: ssoclient -SWITCH"), "{help}");
    let text = desk.system.sso_ok("admin", &["compat", "ssomanage", "-help"]);
    assert!(text.contains("-createmappings FILE"), "{text}");
    let text = desk.system.sso_ok("admin", &["compat", "ssomanage", "-listapps", "all"]);
    assert!(text.starts_with("Using SSO server on this computer\n"), "{text}");
    let output = desk.system.sso("admin", &["compat", "ssops", "-create", "x"]);
    assert_eq!(output.status.code(), Some(1));
}
