//! The commands without a terminal: what they write, and how each of them ends on bad input.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Room, mode};
use crate::cli::json;

#[test]
fn a_small_installation_by_hand() {
    let room = Room::new();
    room.ok("ca --out @ --name CORP");
    room.ok("issue --ca @ --out @ --name m --role master --ip 10.0.0.1");
    let client = "issue --ca @ --out @ --name alice --role client --account CORP\\alice";
    room.ok(client);
    room.ok("show @alice.crt");
    assert_eq!(mode(&room.path("alice.key")), 0o600);
    room.fails(client, 1, "nothing was overwritten");
    room.fails("ca --out @ --name CORP", 1, "nothing was overwritten");
    assert_eq!(fs::read_dir(room.path("issued")).unwrap().count(), 2);
}

#[test]
fn from_the_request_to_the_revocation() {
    let room = Room::with_pki();
    assert!(room.path("pki/chain.crt").is_file() && room.path("pki/root.crt").is_file());
    room.ok("request --out @tls --name bills --usage client --subject CN=bills.example,O=Example");
    assert_eq!(mode(&room.path("tls/bills.key")), 0o600);
    room.ok("sign --ca @pki @tls/bills.csr --out @bills.crt --usage client --days 200 --yes");
    let install = "install --certificate @bills.crt --key @tls/bills.key --ca @pki/root.crt --out \
                   @installed --name bills --usage client";
    room.ok(install);
    room.fails(install, 1, "--replace");
    room.ok(&format!("{install} --replace"));
    room.ok("show @installed/bills.crt --ca @pki/root.crt");

    room.ok("crl --ca @pki --out @pki.crl");
    room.ok("revoke --ca @pki @installed/bills.crt --reason superseded");
    room.ok("revoke --ca @pki @installed/bills.crt --reason key-compromise");
    room.ok("crl --ca @pki --out @pki.crl --hours 12");
    room.ok("crl --ca @pki --out @pki.der --der");
    let book = fs::read_to_string(room.path("pki/revoked.json")).unwrap();
    assert!(book.contains("\"superseded\"") && book.contains("\"list_number\": 3"), "{book}");
    room.ok("revoke --ca @root @pki/ca.crt --reason ca-compromise");
    room.ok("crl --ca @root --out @root.crl");
}

#[test]
fn encrypted_keys_and_pkcs12_both_ways() {
    let room = Room::new();
    room.secret("pass", "canary one\n");
    room.secret("other", "canary two\n");
    room.ok("ca --out @ca --name Root --key-type p384 --passphrase-file @pass");
    room.fails("issue --ca @ca --out @ --name gw --role client", 2, "--ca-passphrase-file");
    let wrong = "issue --ca @ca --out @ --name gw --role client --ca-passphrase-file @other";
    room.fails(wrong, 1, "passphrase is wrong");
    room.ok("issue --ca @ca --out @ --name gw --role client --ca-passphrase-file @pass \
             --passphrase-file @other --key-type ed25519");
    let key = fs::read_to_string(room.path("gw.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{key}");
    room.ok("crl --ca @ca --out @ca.crl --ca-passphrase-file @pass");
    room.ok("show @gw.crt --key @gw.key --passphrase-file @other");
    room.fails("show @gw.crt --key @gw.key", 2, "--passphrase-file");
    // A key that nobody named is only noted.
    room.ok("show @gw.crt");

    let export = "export --certificate @gw.crt --key @gw.key --out @gw.p12";
    room.fails(&format!("{export} --passphrase-file @pass"), 2, "--key-passphrase-file");
    room.ok(&format!("{export} --passphrase-file @pass --key-passphrase-file @other"));
    assert_eq!(mode(&room.path("gw.p12")), 0o600);
    room.ok("show @gw.p12 --passphrase-file @pass");
    room.fails("show @gw.p12 --passphrase-file @other", 1, "passphrase is wrong");
    room.ok("import @gw.p12 --out @in --name gw --passphrase-file @pass");
    assert_eq!(mode(&room.path("in/gw.key")), 0o600);
    assert!(fs::read_to_string(room.path("in/gw.key")).unwrap().contains("BEGIN PRIVATE KEY"));
    let again = "import @gw.p12 --out @in --name gw --passphrase-file @pass";
    room.fails(again, 1, "--replace");
    room.ok(&format!("{again} --replace --new-passphrase-file @other"));
    room.ok(
        "install --certificate @gw.p12 --passphrase-file @pass --ca @ca/ca.crt --out @in --name x",
    );

    // The file of a passphrase is a secret as well.
    fs::set_permissions(room.path("pass"), fs::Permissions::from_mode(0o644)).unwrap();
    room.fails("import @gw.p12 --out @in --name y --passphrase-file @pass", 64, "pass");
}

#[test]
fn a_key_is_used_again_for_a_renewal() {
    let room = Room::with_pki();
    room.ok("request --out @ --name again --key @gw.key --usage client");
    assert!(!room.path("again.key").exists());
    room.ok("sign --ca @pki @again.csr --out @again.crt --role client --yes");
    room.ok("install --certificate @again.crt --key @gw.key --ca @root/ca.crt --out @ --name gw --replace");
}

#[test]
fn bad_input_has_its_exit_code_and_its_name() {
    let room = Room::with_pki();
    room.ok("ca --out @short --name Short --days 30");
    let issue = "issue --ca @short --out @ --role client --name x";
    room.fails(&format!("{issue} --days 31"), 2, "at most 29 days");
    room.fails(&format!("{issue} --days 1 --crl-url ldap://x"), 2, "http");
    room.fails("show @pki/ca.key", 2, "but a private key");
    room.fails("show @nowhere.crt", 1, "nowhere.crt");
    room.fails("ca --out @deep --name Deep --parent @pki", 2, "leaves only");

    // Of another key.
    room.ok("request --out @ --name other --usage client");
    let install = "install --certificate @gw.crt --out @in --name x";
    room.fails(&format!("{install} --key @other.key --ca @root/ca.crt"), 1, "is not the key of");
    room.fails("show @gw.crt --key @other.key", 1, "is not the key of");
    // Trust that leads nowhere, and a chain with a hole.
    room.fails(&format!("{install} --key @gw.key --ca @short/ca.crt"), 1, "chain is incomplete");
    let gw = fs::read_to_string(room.path("gw.crt")).unwrap();
    let leaf = gw.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    fs::write(room.path("leaf.crt"), leaf).unwrap();
    let alone =
        "install --certificate @leaf.crt --key @gw.key --ca @root/ca.crt --out @in --name x";
    room.fails(alone, 1, "issued by CN=Below, which was not given");
    room.ok(&format!("{alone} --chain @pki/ca.crt"));
    // Wrong purpose.
    let install = format!("{install} --key @gw.key --ca @root/ca.crt --replace");
    room.fails(&format!("{install} --usage server"), 1, "not for TLS servers");
    let authority =
        "install --certificate @pki/ca.crt --key @pki/ca.key --ca @root/ca.crt --out @in --name y";
    room.fails(authority, 1, "that of an authority");

    // Requests.
    room.fails("sign --ca @pki @other.csr --out @o.crt --usage client", 2, "--yes");
    room.fails(
        "sign --ca @pki @gw.crt --out @o.crt --usage client --yes",
        2,
        "no certificate request",
    );
    room.ok("request --out @ --name inside --usage client --uri sso://CORP/admin");
    let outside = "sign --ca @pki @inside.csr --out @o.crt --usage client --yes";
    room.fails(outside, 2, "--role");
    let csr = fs::read(room.path("other.csr")).unwrap();
    let mut der = pem::parse(&csr).unwrap().into_contents();
    let at = der.windows(5).position(|window| window == b"other").unwrap();
    der[at] = b'O';
    fs::write(room.path("changed.csr"), der).unwrap();
    room.fails(
        "sign --ca @pki @changed.csr --out @o.crt --usage client --yes",
        1,
        "signature of the request",
    );
    assert!(!room.path("o.crt").exists());

    // Revocation.
    room.fails("revoke --ca @short @gw.crt", 1, "not by this authority");
    room.fails("revoke --ca @pki 0123456789abcdef", 1, "no certificate with the serial number");
    room.fails("revoke --ca @pki nonsense", 2, "hexadecimal digits");
    room.fails("revoke --ca @root @root/ca.crt", 2, "cannot revoke itself");
    room.ok("crl --ca @short --out @short.crl");
    room.fails("crl --ca @pki --out @short.crl", 1, "another authority");
    room.fails("crl --ca @pki --out @gw.crt", 1, "--replace");
    room.ok("crl --ca @pki --out @short.crl --replace");
    // PKCS #12.
    room.secret("pass", "canary");
    room.fails("import @gw.crt --out @in --name z --passphrase-file @pass", 2, "no private key");
    fs::write(room.path("cut.p12"), [0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x03]).unwrap();
    room.fails("import @cut.p12 --out @in --name z --passphrase-file @pass", 2, "damaged PKCS #12");
}

#[test]
fn lines_that_make_no_sense_are_refused_by_the_parser() {
    let room = Room::new();
    for line in [
        "sign --ca x y --out z",
        "sign --ca x y --out z --role client --usage client",
        "request --out x --name y --subject nonsense",
        "request --out x --name y --key z --encrypt-key",
        "request --out x --name y --role client --usage client",
        "ca --out x --name y --ca-passphrase-file z",
        "crl --ca x --out y --days 0",
        "crl --ca x --out y --days 1 --hours 1",
        "revoke --ca x y --reason bored",
        "issue --ca x --out y --name z --role client --key-type rsa",
    ] {
        let ran = room.sso(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{line}: {}", ran.stderr);
    }
}

#[test]
fn documents_for_scripts() {
    let room = Room::with_pki();
    let document = |line: &str| json(&room.ok(&format!("{line} -o json")));
    let tree = document("show @gw.crt --ca @root/ca.crt");
    let subjects: Vec<_> =
        tree["certificates"].as_array().unwrap().iter().map(|it| &it["subject"]).collect();
    assert_eq!(subjects, ["CN=Root", "CN=Below", "CN=gw"]);
    let leaf = &tree["certificates"][2];
    assert_eq!((&leaf["position"], &leaf["signature"]), (&"leaf".into(), &"good".into()));
    assert_eq!(leaf["usages"], serde_json::json!(["client"]));
    assert!(leaf["private_key"].as_str().unwrap().ends_with("gw.key"), "{leaf}");
    let serial = leaf["serial"].as_str().unwrap();

    let revoked = document(&format!("revoke --ca @pki {serial} --reason superseded"));
    assert_eq!((&revoked["serial"], &revoked["before"]), (&leaf["serial"], &false.into()));
    let again =
        document(&format!("revoke --ca @pki {}", leaf["thumbprint_sha1"].as_str().unwrap()));
    assert_eq!((&again["reason"], &again["before"]), (&"superseded".into(), &true.into()));
    let list = document("crl --ca @pki --out @pki.crl");
    assert_eq!((&list["number"], &list["revoked"]), (&1.into(), &1.into()));
    let made = document("request --out @ --name r --usage server --dns r.example");
    assert_eq!(made["alternative_names"], serde_json::json!(["DNS:r.example"]));
    let signed = document("sign --ca @pki @r.csr --out @r.crt --usage server --yes");
    assert!(signed["files"][0].as_str().unwrap().ends_with("r.crt"), "{signed}");
    assert_eq!(signed["certificates"][0]["subject"], "CN=Below");
    assert_eq!(signed["warnings"], serde_json::json!([]));
    let signed = document(
        "sign --ca @pki @r.csr --out @r.crt --usage client --subject O=Out --yes --replace",
    );
    let warnings = signed["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{signed}");
    assert!(warnings[0].as_str().unwrap().contains("DNS \"r.example\" (san_dns)"), "{signed}");
}

#[test]
fn names_of_systems_outside_that_servers_may_know() {
    let room = Room::with_pki();
    room.ok("request --out @ --name out --usage client --subject CN=alice --email alice@x.example");
    let sign = "sign --ca @pki @out.csr --out @out.crt";
    let refused = room.sso(&format!("{sign} --usage client"));
    assert_eq!(refused.code, 2);
    let signed = room.sso(&format!("{sign} --usage client --yes"));
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    for ran in [&refused, &signed] {
        for words in [
            "sso: warning: ",
            "CN \"alice\" (subject_common_name)",
            "email \"alice@x.example\" (san_email)",
            "an authority of its own",
        ] {
            assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        }
    }
    // For somebody inside, that is what the names are for.
    let inside = room.sso(&format!("{sign} --role client --yes --replace"));
    assert!(inside.code == 0 && !inside.stderr.contains("warning"), "{}", inside.stderr);
}

#[test]
fn a_damaged_copy_keeps_nobody_from_revoking() {
    let room = Room::with_pki();
    let shown = json(&room.ok("show @gw.crt -o json"));
    let serial = shown["certificates"][1]["serial"].as_str().unwrap().to_owned();
    fs::write(room.path("pki/issued/0badc0de.crt"), "half a certi").unwrap();
    let ran = room.sso(&format!("revoke --ca @pki {serial}"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("warning: ") && ran.stderr.contains("0badc0de.crt"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_tree_for_people() {
    let room = Room::with_pki();
    let text = room.ok("show @gw.crt --ca @root/ca.crt");
    let heads: Vec<_> = text.lines().filter(|line| line.contains("CN=")).collect();
    assert_eq!(heads, ["CN=Root", "└─ CN=Below", "   └─ CN=gw"]);
    for words in [
        "root, signed by itself; one level of authorities below it",
        "intermediate authority; issues leaves only",
        "(ends in 396 days)",
        "URI:sso://CORP/gw",
        "TLS client",
        "you have the private key: ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let help = room.ok("--help");
    assert!(help.contains("revoke") && help.contains("Example"), "{help}");
}

#[test]
fn certificates_out_of_their_time_are_not_installed() {
    use sso_client::certificates::{Authority, Request, Role};
    use time::{Duration, macros::datetime};

    let room = Room::new();
    for (name, now, words) in [
        ("late", datetime!(2020-01-02 00:00 UTC), "expired on 2020-02-01"),
        ("early", datetime!(2095-01-02 00:00 UTC), "not valid before 2095-01-01"),
    ] {
        let authority = Authority::create("Root", Duration::days(3650), false, now).unwrap();
        authority.write(&room.path(name), false).unwrap();
        let request = Request::new(name, Role::Client, Duration::days(30));
        let issued = authority.issue(&request, now).unwrap();
        issued.write(&room.path(name), "leaf", false).unwrap();
        room.fails(
            &format!(
                "install --certificate @{name}/leaf.crt --key @{name}/leaf.key --ca @{name}/ca.crt \
                 --out @in --name {name}"
            ),
            1,
            words,
        );
        let text = room.ok(&format!("show @{name}/leaf.crt"));
        let state = if name == "late" { "(EXPIRED " } else { "(not yet: starts in " };
        assert!(text.contains(state), "{text}");
        assert!(!room.path("in").join(format!("{name}.crt")).exists());
    }
    // An authority that is over issues nothing, though it can still be asked.
    room.fails("issue --ca @early --out @ --name x --role client", 1, "not valid before");
}

#[test]
fn the_programs_take_what_is_made_here() {
    use sso_core::tls::{ListSource, TlsReloader, TlsSettings};

    let room = Room::with_pki();
    room.secret("pass", "canary\n");
    for kind in ["p256", "p384", "ed25519"] {
        room.ok(&format!(
            "issue --ca @pki --out @ --name {kind} --role server --dns localhost --key-type {kind} \
             --passphrase-file @pass"
        ));
        room.ok("crl --ca @pki --out @pki.crl");
        room.ok("crl --ca @root --out @root.crl --der");
        let path = |ending: &str| room.path(&format!("{kind}.{ending}"));
        let mut settings = TlsSettings::new(path("crt"), path("key"), room.path("pki/root.crt"));
        settings.crl =
            ["pki.crl", "root.crl"].map(|name| ListSource::File(room.path(name))).to_vec();
        assert!(TlsReloader::load(&settings).is_err(), "without the passphrase");
        settings.key_passphrase_file = Some(room.path("pass"));
        let loaded = TlsReloader::load(&settings).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(loaded.warnings(), Vec::<String>::new(), "{kind}");
        assert_eq!(loaded.status().lists.len(), 2);
    }
}
