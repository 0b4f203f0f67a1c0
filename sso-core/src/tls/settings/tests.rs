//! What the section `[tls]` may hold.

use proptest::prelude::*;

use super::*;

const FILES: &str = "certificate = 'a'\nkey = 'b'\nca = 'c'\n";

fn parse(text: &str) -> Result<TlsSettings, String> {
    toml::from_str(&format!("{FILES}{text}")).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_said_is_strict() {
    let plain = parse("").unwrap();
    assert_eq!(plain, TlsSettings::new("a", "b", "c"));
    assert_eq!(plain.minimum_version, TlsVersion::V1_3);
    assert_eq!(plain.client_certificate, ClientCertificate::Required);
    assert_eq!(plain.revocation_policy(), RevocationPolicy::Off);
    let listed = parse("crl = 'ca.crl'").unwrap();
    assert_eq!(listed.crl, [ListSource::File("ca.crl".into())]);
    assert_eq!(listed.revocation_policy(), RevocationPolicy::HardFail);
}

#[test]
fn every_key_is_read_and_paths_are_resolved() {
    let settings = parse(
        "key_passphrase_file = 'p'\nminimum_version = '1.2'\nclient_certificate = 'optional'\n\
         crl = ['ca.crl', 'https://pki.example/ca.crl']\nrevocation = 'soft-fail'\n\
         crl_refresh_seconds = 60\ncrl_cache = 'kept'\nallow_development = true",
    );
    let settings = settings.unwrap().resolve(Path::new("/etc/sso"));
    assert_eq!(settings.certificate, Path::new("/etc/sso/a"));
    assert_eq!(settings.key_passphrase_file.as_deref(), Some(Path::new("/etc/sso/p")));
    assert_eq!(settings.crl_cache.as_deref(), Some(Path::new("/etc/sso/kept")));
    assert_eq!(
        settings.crl,
        [
            ListSource::File("/etc/sso/ca.crl".into()),
            ListSource::Url("https://pki.example/ca.crl".into())
        ]
    );
    assert_eq!(settings.revocation, Some(RevocationPolicy::SoftFail));
    assert_eq!(settings.minimum_version, TlsVersion::V1_2);
    assert_eq!(settings.client_certificate, ClientCertificate::Optional);
    assert_eq!(settings.crl_refresh, Duration::from_secs(60));
    assert!(settings.allow_development);
    assert_eq!(settings.trust().revocation_policy(), RevocationPolicy::SoftFail);
}

#[test]
fn nothing_old_can_be_enabled_and_nothing_contradictory_asked_for() {
    for (text, words) in [
        ("minimum_version = '1.1'", "nothing older can be enabled"),
        ("minimum_version = '1.0'", "nothing older can be enabled"),
        ("minimum_version = 'SSLv3'", "nothing older can be enabled"),
        ("minimum_version = '1.4'", "write \"1.3\" or \"1.2\""),
        ("minimum_version = 1.2", "expected a string"),
        ("revocation = 'hard-fail'", "hard-fail needs revocation lists"),
        ("revocation = 'soft-fail'", "soft-fail needs revocation lists"),
        ("revocation = 'maybe'", "unknown variant"),
        ("crl = []", "is empty"),
        ("crl = 7", "a file or URL"),
        ("crl = ['a', 'a']", "is named twice"),
        ("crl = 'ftp://pki.example/ca.crl'", "http:// and https:// alone"),
        ("crl = 'http://'", "no address"),
        ("crl = 'https://user:word@pki.example/'", "must not have a user"),
        ("crl = ''", "name a file"),
        ("crl_refresh_seconds = 0", "has to be from 1"),
        ("crl_refresh_seconds = 604801", "to 604800"),
        ("client_certificate = 'no'", "unknown variant"),
        ("crls = 'x'", "unknown field"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn words_are_read_as_they_are_written() {
    for policy in [RevocationPolicy::HardFail, RevocationPolicy::SoftFail, RevocationPolicy::Off] {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    for version in [TlsVersion::V1_3, TlsVersion::V1_2] {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
}

proptest! {
    #[test]
    fn a_source_is_what_it_was_read_from(text in ".{0,60}") {
        if let Ok(source) = text.parse::<ListSource>() {
            prop_assert_eq!(source.to_string(), text.clone());
            let is_url = matches!(source, ListSource::Url(_));
            prop_assert_eq!(is_url, text.contains("://"));
        }
    }

    #[test]
    fn addresses_are_taken_or_refused(host in "[a-z0-9.:@/-]{0,20}", scheme in "[a-z]{1,6}") {
        let text = format!("{scheme}://{host}");
        let taken = text.parse::<ListSource>().is_ok();
        prop_assert!(!taken || ["http", "https"].contains(&scheme.as_str()));
        prop_assert!(!taken || !host.is_empty());
    }
}
