//! Section `[master]`.

use crate::master::MasterSettings;

fn parsed(text: &str) -> Result<MasterSettings, String> {
    let settings: MasterSettings = toml::from_str(text).map_err(|error| error.to_string())?;
    settings.check().map_err(|(key, why)| format!("{key}: {why}"))?;
    Ok(settings)
}

const CACHE: &str = "url = 'https://a:1'\n[cache]\nfile = 'lease'\n";

#[test]
fn one_address_and_several_are_accepted() {
    assert_eq!(parsed("url = 'https://a:1'").unwrap().addresses(), ["https://a:1"]);
    let several = parsed("urls = ['https://a:1', 'https://b:1']").unwrap();
    assert_eq!(several.addresses(), ["https://a:1", "https://b:1"]);
}

#[test]
fn settings_are_checked() {
    let url = "url = 'https://a:1'\n";
    for (text, key) in [
        ("url = 'http://a:1'", "url: "),
        ("urls = ['https://a:1', 'http://b:1']", "urls: http://b:1"),
        ("urls = ['https://a:1', 'https://a:1']", "twice"),
        ("urls = []", "url: "),
        ("url = 'https://a:1'\nurls = ['https://b:1']", "urls: "),
        (&format!("{url}poll_seconds = 0"), "poll_seconds: "),
        (&format!("{url}read_lease_seconds = 0\nwrite_lease_seconds = 1"), "read_lease_seconds: "),
        (&format!("{url}read_lease_seconds = 5\nwrite_lease_seconds = 6"), "write_lease_seconds: "),
        (&format!("{CACHE}protector = []"), "cache.protector: "),
        (
            &format!(
                "{CACHE}[[cache.protector]]\nkind = 'keyutils'\n[[cache.protector]]\nkind = 'keyutils'"
            ),
            "exactly one",
        ),
        (&format!("{CACHE}[[cache.protector]]\nkind = 'passphrase'"), "nobody there"),
        (&format!("{CACHE}[[cache.protector]]\nkind = 'key-file'"), "cache.protector.key_file"),
    ] {
        let error = parsed(text).unwrap_err();
        assert!(error.contains(key), "{text}: {error}");
    }
    let good = format!("{CACHE}[[cache.protector]]\nkind = 'key-file'\nkey_file = 'wrapping'");
    let mut good = parsed(&good).unwrap();
    good.resolve(std::path::Path::new("/etc/sso"));
    assert_eq!(good.cache.unwrap().file, std::path::Path::new("/etc/sso/lease"));
}
