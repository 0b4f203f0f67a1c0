use sso_core::peer::{CertificatePart, CertificateRule};
use time::OffsetDateTime;

use super::*;

mod forged;

fn domains() -> BTreeSet<String> {
    ["dev", "contoso"].map(str::to_owned).into()
}

fn certificate_rule(part: CertificatePart, pattern: &str) -> CertificateRule {
    CertificateRule::new([(part, Some(pattern.to_owned()))]).unwrap()
}

fn rule(part: CertificatePart, pattern: &str, account: &str) -> AccountRule {
    AccountRule::new(certificate_rule(part, pattern), account, &domains()).unwrap()
}

fn certificate(uris: &[&str], emails: &[&str]) -> PeerCertificate {
    PeerCertificate {
        subject_common_name: Some("DEV\\admin".into()),
        uris: uris.iter().map(|&uri| uri.to_owned()).collect(),
        emails: emails.iter().map(|&email| email.to_owned()).collect(),
        dns_names: Vec::new(),
        thumbprint_sha256: "0".repeat(64),
        thumbprint_sha1: "0".repeat(40),
        serial: "01".into(),
        not_before: OffsetDateTime::UNIX_EPOCH,
        not_after: OffsetDateTime::UNIX_EPOCH,
        development: false,
    }
}

fn groups(text: &str) -> (tempfile::TempDir, Arc<Groups>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("groups.toml");
    std::fs::write(&file, format!("version = 1\n[groups]\n{text}")).unwrap();
    let groups = Groups::load(Some(&file)).unwrap();
    (folder, groups)
}

fn identity(rules: Vec<AccountRule>) -> Identity {
    Identity::new(rules, domains(), Groups::load(None).unwrap())
}

async fn by_certificate(identity: &Identity, certificate: &PeerCertificate) -> Option<String> {
    let shown = Shown { certificate: Some(certificate), ..Shown::default() };
    let caller = identity.caller(&shown).await;
    caller.ok().map(|caller| caller.account.as_str().to_owned())
}

fn process(uid: u32, user: Option<&str>) -> LocalPeer {
    LocalPeer { uid, user: user.map(Arc::from), pid: Some(7), program: Some("/bin/x".into()) }
}

async fn by_socket(identity: &Identity, peer: &LocalPeer) -> Option<Arc<Caller>> {
    identity.caller(&Shown { local: Some(peer), ..Shown::default() }).await.ok()
}

#[tokio::test]
async fn the_first_rule_that_fits_decides() {
    let identity = identity(vec![
        rule(CertificatePart::SanUri, "sso://DEV/robot", "DEV\\service"),
        rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*"),
        rule(CertificatePart::SanEmail, "*@contoso.example", "CONTOSO\\mail-*"),
    ]);
    for (uris, emails, wanted) in [
        (&["sso://DEV/robot"][..], &[][..], Some("DEV\\service")),
        (&["sso://DEV/ann"], &[], Some("DEV\\ann")),
        (&[], &["bo@contoso.example"], Some("CONTOSO\\mail-bo")),
        (&["sso://PROD/ann"], &[], None),
        (&[], &[], None),
    ] {
        let found = by_certificate(&identity, &certificate(uris, emails)).await;
        assert_eq!(found.as_deref(), wanted);
    }
}

#[tokio::test]
async fn an_ambiguous_certificate_is_nobody_to_later_rules_too() {
    let identity = identity(vec![
        rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*"),
        rule(CertificatePart::SanEmail, "*@contoso.example", "CONTOSO\\mail-*"),
    ]);
    let email = ["bo@contoso.example"];
    let two = certificate(&["sso://DEV/ann", "sso://DEV/bob"], &email);
    assert!(by_certificate(&identity, &two).await.is_none());
    assert!(by_certificate(&identity, &certificate(&[], &email)).await.is_some());
}

#[test]
fn the_name_of_a_group_is_nobody_also_later() {
    let (_folder, groups) = groups("'DEV\\ann' = []\n'DEV\\all' = ['DEV\\bob']\n");
    let identity = Identity::new(Vec::new(), domains(), groups);
    let again = |account: &str| {
        let account = Account::parse(account).unwrap();
        identity.again(&Caller::new(account, BTreeMap::new(), Proof::Certificate))
    };
    assert_eq!(again("DEV\\ann").unwrap_err().reason, Reason::NotAuthenticated);
    assert_eq!(again("DEV\\bob").unwrap().groups.len(), 1);
    assert!(identity.as_known(&Account::parse("dev\\ANN").unwrap()).is_none());
}

#[tokio::test]
async fn names_that_are_no_accounts_are_nobody() {
    let identity = identity(vec![rule(CertificatePart::SanUri, "sso://DEV/*", "DEV\\*")]);
    for uri in ["sso://DEV/everyone", "sso://DEV/a\\b", "sso://DEV/a/b", "sso://DEV/"] {
        assert!(by_certificate(&identity, &certificate(&[uri], &[])).await.is_none(), "{uri}");
    }
}

#[test]
fn patterns_keep_to_their_domains() {
    let made = |pattern: &str, account: &str| {
        AccountRule::new(certificate_rule(CertificatePart::SanUri, pattern), account, &domains())
    };
    assert!(made("a/*", "dev\\*").is_ok());
    assert!(made("a", "DEV\\fixed").is_ok());
    for bad in ["PROD\\*", "*\\x", "*", "x", "DEV\\", "DEV\\*-*", "D*V\\x", "DEV\\a\\b", ""] {
        assert!(made("a/*", bad).is_err(), "{bad}");
    }
    assert!(made("a", "DEV\\*").is_err());
}

#[tokio::test]
async fn users_of_local_processes_are_accounts_and_root_is_one_of_them() {
    let (_folder, groups) = groups("'HOST\\admins' = ['HOST\\bea']\n'HOST\\wheel' = []\n");
    let identity = Identity::new(Vec::new(), domains(), groups).with_unix(vec![
        UnixRule::single(Ok("robot".into()), "HOST\\service").unwrap(),
        UnixRule::single(Err(1007), "HOST\\seven").unwrap(),
        UnixRule::Everyone(SourceDomain::parse("HOST").unwrap()),
    ]);
    for (uid, user, wanted) in [
        (1000, Some("robot"), Some("HOST\\service")),
        (1007, Some("bea"), Some("HOST\\seven")),
        (1007, None, Some("HOST\\seven")),
        (1001, Some("bea"), Some("HOST\\bea")),
        (0, Some("root"), Some("HOST\\root")),
        // No name, no account; the name of a group; everybody whom Linux cannot name.
        (1002, None, None),
        (1003, Some("wheel"), None),
        (65_534, Some("nobody"), None),
        (1004, Some("everyone"), None),
        (1005, Some("DEV\\ann"), None),
        (1006, Some("a/b"), None),
    ] {
        let caller = by_socket(&identity, &process(uid, user)).await;
        assert_eq!(caller.as_ref().map(|caller| caller.account.as_str()), wanted, "{uid} {user:?}");
    }
    let bea = by_socket(&identity, &process(1001, Some("bea"))).await.unwrap();
    assert_eq!(bea.proof, Proof::UnixPeer { pid: Some(7), subject: "unix|1001".into() });
    assert_eq!(bea.groups.len(), 1);
    let root = by_socket(&identity, &process(0, Some("root"))).await.unwrap();
    assert!(root.groups.is_empty());
}

#[tokio::test]
async fn who_shows_nothing_is_nobody() {
    let error = identity(Vec::new()).caller(&Shown::default()).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotAuthenticated);
    let shown = Shown { bearer: Some(Bearer("a.b.c")), ..Shown::default() };
    let error = identity(Vec::new()).caller(&shown).await.unwrap_err();
    assert_eq!(error.reason, Reason::TokenRefused);
    assert!(!format!("{shown:?}").contains("a.b.c"));
}
