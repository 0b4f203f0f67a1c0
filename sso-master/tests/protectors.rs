//! `sso-master protector`, with the real program and a token of SoftHSM.
//!
//! Without SoftHSM the test says that it did not run; `SSO_REQUIRE_PKCS11=1` makes that a failure.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

const PIN: &str = "471147";
const BASE: &str = "version = 1\nname = 'm'\nkeystore = 'keystore.json'\nlisten = '127.0.0.1:0'\n\
                    [tls]\ncertificate = 'x'\nkey = 'x'\nca = 'x'\n";
const KEY_FILE: &str = "[[protector]]\nkind = 'key-file'\nkey_file = 'unlock.key'\n";

/// Where distributions put SoftHSM.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn private(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn settings(&self, protectors: &[&str]) {
        fs::write(self.path("settings.toml"), BASE.to_owned() + &protectors.concat()).unwrap();
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("SOFTHSM2_CONF", self.path("softhsm2.conf"))
            .output()
            .unwrap()
    }

    fn master(&self, arguments: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_sso-master"));
        let output = self.run(program, &[arguments, &["--settings", "settings.toml"]].concat());
        // Whatever happens, neither secret is seen.
        for part in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(part);
            assert!(!text.contains(PIN) && !text.contains("0123456789abcdef0123"), "{text}");
        }
        output
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.master(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str], code: i32, words: &str) {
        let output = self.master(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }

    /// Kinds in the keystore, and whether they open it.
    fn opens(&self) -> Vec<(String, Option<bool>)> {
        let text = self.good(&["protector", "list", "--try", "--output", "json"]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let line = |it: &serde_json::Value| {
            (it["kind"].as_str().unwrap().to_owned(), it["opens"].as_bool())
        };
        listed.iter().filter(|it| !it["number"].is_null()).map(line).collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test asks how it is run")]
fn is_required() -> bool {
    std::env::var_os("SSO_REQUIRE_PKCS11").is_some()
}

#[test]
fn a_token_takes_the_place_of_a_key_file() {
    let Some(module) = MODULES.iter().find(|path| Path::new(path).exists()) else {
        assert!(!is_required(), "SoftHSM is not installed");
        eprintln!("NOT TESTED: PKCS#11, because SoftHSM is not installed");
        return;
    };
    let place = Place(tempfile::tempdir().unwrap());
    let tokens = place.path("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = format!("directories.tokendir = {}\n", tokens.display());
    fs::write(place.path("softhsm2.conf"), conf).unwrap();
    let made = ["--init-token", "--free", "--label", "sso", "--so-pin", "12345678", "--pin", PIN];
    let made = place.run(Path::new("softhsm2-util"), &made);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let token = format!(
        "[[protector]]\nkind = 'pkcs11'\nmodule = '{module}'\ntoken = 'sso'\nkey = 'keystore'\n\
         pin_file = 'pin'\n"
    );
    place.private("unlock.key", b"0123456789abcdef0123456789abcdef");
    place.private("password", b"battery staple");
    place.private("pin", PIN.as_bytes());
    place.settings(&[KEY_FILE]);
    place.good(&["init", "--backup", "first.backup", "--backup-password-file", "password"]);
    let file = || fs::read(place.path("keystore.json")).unwrap();
    let before = file();

    // Nothing is lost by mistakes.
    place.refused(&["protector", "remove", "key-file"], 1, "only protector");
    place.refused(&["protector", "add", "--kind", "pkcs11"], 64, "no [[protector]] of the kind");
    place.settings(&[KEY_FILE, &token]);
    place.private("pin", b"000000");
    place.refused(&["protector", "add"], 77, "refuses the PIN");
    assert_eq!(file(), before);
    place.private("pin", PIN.as_bytes());
    assert!(place.good(&["protector", "list"]).contains("not added"));

    let added = place.good(&["protector", "add", "--kind", "pkcs11"]);
    assert!(added.contains("pkcs11 sso/keystore"), "{added}");
    let both = [("key-file".to_owned(), Some(true)), ("pkcs11".to_owned(), Some(true))];
    assert_eq!(place.opens(), both);
    assert!(place.good(&["protector", "add"]).contains("nothing to add"));

    place.good(&["protector", "remove", "key-file"]);
    place.settings(&[&token]);
    fs::remove_file(place.path("unlock.key")).unwrap();
    assert_eq!(place.opens(), [("pkcs11".to_owned(), Some(true))]);
    place.private("pin", b"000000");
    assert_eq!(place.opens(), [("pkcs11".to_owned(), Some(false))]);
    place.private("pin", PIN.as_bytes());
    assert_eq!(place.opens(), [("pkcs11".to_owned(), Some(true))]);
    assert_eq!(
        fs::metadata(place.path("keystore.json")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let names: Vec<_> = fs::read_dir(place.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().expect("UTF-8"))
        .filter(|name| name.starts_with("keystore.json") || name.starts_with('.'))
        .collect();
    assert_eq!(names, ["keystore.json"], "no lock and no temporary file is left over");
}
