//! The program's own certificate and key: what is wrong with them is said at the load, by name.

use std::fs;

use pkcs8::{
    EncryptedPrivateKeyInfoRef,
    der::{Encode as _, asn1::OctetStringRef, pem::LineEnding},
    pkcs5::{EncryptionScheme, pbes2},
};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use sso_core::{
    clock::Clock,
    settings::write_private,
    tls::{Application, TlsError, TlsReason, TlsReloader, TlsSettings},
};

use crate::{
    pki::{Pki, year},
    world::{at, call, channel, serve_files},
};

fn listener_error(settings: &TlsSettings) -> (TlsReason, String) {
    let loaded = TlsReloader::load_listener(settings, Application::Grpc, Clock::System);
    let error = loaded.unwrap_err();
    let TlsError::Unusable { reason, .. } = &error else { panic!("{error}") };
    (*reason, error.to_string())
}

#[test]
fn a_good_certificate_will_do() {
    let pki = Pki::new();
    let load = |settings: &TlsSettings| {
        TlsReloader::load_listener(settings, Application::Grpc, Clock::System).unwrap()
    };
    assert!(load(&pki.issue("server")).warnings().is_empty());
    assert!(load(&pki.intermediate("Branch").issue("below")).warnings().is_empty());
}

#[test]
fn time_purpose_and_chain_of_the_own_certificate_are_checked() {
    let pki = Pki::new();
    let past = pki.issue_with("past", |params| params.not_after = year(2021));
    let (reason, words) = listener_error(&past);
    assert_eq!(reason, TlsReason::CertificateExpired);
    assert!(words.contains("past.crt: certificate: ") && words.contains("2021-01-01"), "{words}");

    let future = pki.issue_with("future", |params| params.not_before = year(2190));
    let (reason, words) = listener_error(&future);
    assert_eq!(reason, TlsReason::CertificateNotYetValid);
    assert!(words.contains("future.crt: ") && words.contains("from 2190-01-01"), "{words}");

    let wrong = pki.issue_with("wrong", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (reason, words) = listener_error(&wrong);
    assert_eq!(reason, TlsReason::WrongPurpose);
    assert!(words.contains("wrong.crt: ") && words.contains("serverAuth"), "{words}");
    // For a program that only calls it is the right one.
    TlsReloader::load(&wrong).unwrap();
    let nothing = pki.issue_with("nothing", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    let error = TlsReloader::load(&nothing).unwrap_err().to_string();
    assert!(error.contains("neither servers nor clients"), "{error}");
}

#[test]
fn an_incomplete_chain_is_named() {
    let pki = Pki::new();
    let branch = pki.intermediate("Branch");
    let below = branch.issue("below");
    let whole = fs::read_to_string(&below.certificate).unwrap();
    let leaf = whole.strip_suffix(&branch.pem()).unwrap();

    fs::write(&below.certificate, leaf).unwrap();
    let (reason, words) = listener_error(&below);
    assert_eq!(reason, TlsReason::UntrustedIssuer);
    assert!(words.contains("below.crt: certificate: the chain is incomplete"), "{words}");
    assert!(words.contains("CN=Branch"), "{words}");
    // Whom a caller meets may know the way; it is warned.
    let warnings = TlsReloader::load(&below).unwrap().warnings();
    assert!(warnings.iter().any(|it| it.contains("chain is incomplete")), "{warnings:?}");

    // Another intermediate does not fill the gap.
    fs::write(&below.certificate, leaf.to_owned() + &pki.intermediate("Other").pem()).unwrap();
    assert_eq!(listener_error(&below).0, TlsReason::UntrustedIssuer);
    // Nor does one with the right name and another key.
    fs::write(&below.certificate, leaf.to_owned() + &pki.intermediate("Branch").pem()).unwrap();
    assert_eq!(listener_error(&below).0, TlsReason::UntrustedIssuer);
    // An authority that peers know and this program does not: its certificate in the file will do.
    let foreign = Pki::new();
    let settings = TlsSettings { ca: pki.path("ca.crt"), ..foreign.issue("foreign") };
    assert_eq!(listener_error(&settings).0, TlsReason::UntrustedIssuer);
    let own = fs::read_to_string(&settings.certificate).unwrap();
    let root = fs::read_to_string(foreign.path("ca.crt")).unwrap();
    fs::write(&settings.certificate, own + &root).unwrap();
    TlsReloader::load_listener(&settings, Application::Grpc, Clock::System).unwrap();
}

#[test]
fn an_authority_is_no_server() {
    let pki = Pki::new();
    let branch = pki.intermediate("Branch");
    let mut settings = pki.issue("server");
    settings.certificate = pki.path("branch.crt");
    fs::write(&settings.certificate, branch.pem()).unwrap();
    let error = TlsReloader::load_listener(&settings, Application::Grpc, Clock::System);
    assert!(error.unwrap_err().to_string().contains("certificate of an authority"));
}

#[test]
fn a_worse_certificate_does_not_replace_a_good_one() {
    let pki = Pki::new();
    let settings = pki.issue("server");
    let tls = TlsReloader::load_listener(&settings, Application::Grpc, at(2020)).unwrap();
    let keeps = |name: &str, edit: &dyn Fn(&mut rcgen::CertificateParams)| {
        let worse = pki.issue_with(name, edit);
        fs::copy(&worse.certificate, &settings.certificate).unwrap();
        fs::copy(&worse.key, &settings.key).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert_eq!(tls.current().number(), 1);
        let warnings = tls.warnings();
        assert!(warnings[0].contains("failed") && warnings[0].contains(&error), "{warnings:?}");
        let (_, words) = tls.status().last_failure.unwrap();
        assert_eq!(words, error);
        error
    };
    assert!(keeps("future", &|it| it.not_before = year(2190)).contains("valid from 2190"));
    assert!(keeps("past", &|it| it.not_after = date(2020, 3)).contains("expired on 2020-03"));
    let error = keeps("client", &|it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert!(error.contains("serverAuth"), "{error}");
    pki.issue("server");
    tls.reload().unwrap();
    assert_eq!(tls.status().last_failure, None);
    assert_eq!((tls.current().number(), tls.warnings().len()), (2, 0));
}

/// News about revocations and authorities do not wait for a better certificate.
#[test]
fn a_worse_certificate_does_not_keep_new_lists_out() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    settings.crl = vec![pki.revoke(&[], 2200).into()];
    let tls = TlsReloader::load_listener(&settings, Application::Grpc, Clock::System).unwrap();
    let own = |tls: &TlsReloader| tls.status().certificates[0].thumbprint_sha256.clone();
    let before = own(&tls);
    fs::write(&settings.certificate, "nothing").unwrap();
    pki.revoke(&[2], 2199);
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::Identity(_)), "{error}");
    let words = error.to_string();
    assert!(words.contains("server.crt: certificate: holds none"), "{words}");
    assert!(words.contains("revocation lists that changed with them are in use"), "{words}");
    let status = tls.status();
    assert_eq!(status.lists[0].next_update, Some(year(2199)));
    assert_eq!((status.generation, status.last_failure.unwrap().1), (2, words));
    assert_eq!(own(&tls), before);
    // Again: nothing more is new.
    assert!(matches!(tls.reload().unwrap_err(), TlsError::Content { .. }));
    assert_eq!(tls.current().number(), 2);
}

/// An authority file that does not go with the certificate in use is no news but a mistake.
#[test]
fn other_authorities_do_not_drive_the_own_certificate_out() {
    let pki = Pki::new();
    let settings = pki.issue("server");
    let tls = TlsReloader::load_listener(&settings, Application::Grpc, Clock::System).unwrap();
    let other = Pki::with(|it| it.distinguished_name.push(rcgen::DnType::CountryName, "XX"));
    fs::copy(other.path("ca.crt"), &settings.ca).unwrap();
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
    assert_eq!(tls.current().number(), 1);
}

fn date(year: i32, month: u8) -> time::OffsetDateTime {
    rcgen::date_time_ymd(year, month, 1)
}

/// The key in the file, encrypted in its place as `openssl pkcs8 -topk8` does it.
fn encrypt(settings: &TlsSettings, passphrase: &str) {
    let key = KeyPair::from_pem(&fs::read_to_string(&settings.key).unwrap()).unwrap();
    let scheme =
        pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(2048, &[7; 16], [9; 16]).unwrap();
    let sealed = scheme.encrypt(passphrase, key.serialized_der()).unwrap();
    let info = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: EncryptionScheme::Pbes2(scheme),
        encrypted_data: OctetStringRef::new(&sealed).unwrap(),
    };
    let document = pkcs8::SecretDocument::try_from(info.to_der().unwrap()).unwrap();
    let pem = document.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).unwrap();
    write_private(&settings.key, pem.as_bytes(), true).unwrap();
}

#[tokio::test]
async fn an_encrypted_key_is_opened_with_its_passphrase() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    encrypt(&settings, "open sesame");
    let error = TlsReloader::load(&settings).unwrap_err().to_string();
    assert!(error.contains("server.key: private key: is encrypted"), "{error}");
    assert!(error.contains("key_passphrase_file"), "{error}");

    let file = pki.path("passphrase");
    settings.key_passphrase_file = Some(file.clone());
    assert!(TlsReloader::load(&settings).unwrap_err().to_string().contains("passphrase"));
    write_private(&file, b"open barley\n", true).unwrap();
    let error = TlsReloader::load(&settings).unwrap_err().to_string();
    assert!(error.contains("cannot be decrypted") && error.contains("passphrase"), "{error}");
    assert!(!error.contains("barley"));

    write_private(&file, b"open sesame\n", true).unwrap();
    let server = serve_files(&settings).await;
    assert_eq!(call(&mut channel(&server, &pki.issue("ann"))).await.unwrap(), "sso://DEV/ann");
    // Others must not read it.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(TlsReloader::load(&settings), Err(TlsError::Lax(_))));

    let plain = TlsSettings { key_passphrase_file: Some(file), ..pki.issue("plain") };
    let error = TlsReloader::load(&plain).unwrap_err().to_string();
    assert!(error.contains("is not encrypted"), "{error}");
}

#[test]
fn damaged_and_old_encrypted_keys_are_named() {
    let pki = Pki::new();
    let mut settings = pki.issue("server");
    let file = pki.path("passphrase");
    write_private(&file, b"open sesame\n", true).unwrap();
    settings.key_passphrase_file = Some(file);
    let begin = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let end = "-----END ENCRYPTED PRIVATE KEY-----";
    for inside in ["", "AAAA", "!!!!", "MIIBvTBXBgkqhkiG9w0BBQ0w"] {
        let text = format!("{begin}\n{inside}\n{end}\n");
        write_private(&settings.key, text.as_bytes(), true).unwrap();
        let error = TlsReloader::load(&settings).unwrap_err().to_string();
        assert!(error.contains("no encrypted PKCS #8 key"), "{error}");
    }
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES\n\nAAAA\n\
               -----END RSA PRIVATE KEY-----\n";
    write_private(&settings.key, old.as_bytes(), true).unwrap();
    settings.key_passphrase_file = None;
    let error = TlsReloader::load(&settings).unwrap_err().to_string();
    assert!(error.contains("openssl pkcs8"), "{error}");
}
