//! What every protector has to do, for each of them: with files, with the kernel of this machine,
//! with a real gnome-keyring-daemon and with a token of SoftHSM.
//!
//! What a process has but once (its environment, its session keyring) is given to a process or a
//! thread of its own. Where the Secret Service or SoftHSM is not installed, the test says that it did
//! not run; `SSO_REQUIRE_SECRET_SERVICE=1` and `SSO_REQUIRE_PKCS11=1` make that a failure. A kernel
//! without keyrings is excused by `SSO_WITHOUT_KEYUTILS=1`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::{
    fmt::Debug,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use sso_core::{memory::LockedKey, passphrase::Argon2Params};
use sso_protector::{
    Kind, OsKeyring, Passphrase, PassphraseSource, Pkcs11, Protector, ProtectorError,
    ProtectorSettings, Stanza, TokenKey, protectors,
};
use uuid::Uuid;

/// Set for the process inside a session bus or beside a token.
const INSIDE: &str = "SSO_TEST_INSIDE";
const SECRET: &str = "correct horse 4711";
const PIN: &str = "471147";

#[expect(clippy::disallowed_methods, reason = "a test asks how it is run")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn key() -> LockedKey {
    LockedKey::from_bytes(&[0xA7; 32]).unwrap()
}

fn private(path: &Path, content: &[u8]) -> PathBuf {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

/// One protector under test, made anew as by the next start of the program.
struct Subject<'a, P> {
    make: &'a dyn Fn() -> P,
    /// The same with a wrong secret, where one has a secret.
    wrong: Option<&'a dyn Fn() -> P>,
    /// What must not be seen.
    secret: &'a str,
    /// Whether it keeps the key outside the keystore.
    keeps: bool,
}

fn conforms<P: Protector + Debug>(subject: &Subject<'_, P>) {
    let protector = (subject.make)();
    let kind = protector.kind();
    let id = Uuid::new_v4();
    let stanza = protector.wrap(id, &key()).unwrap();
    assert_eq!(stanza.kind(), kind);
    assert!(protector.covers(&stanza));
    gives_back(subject, id, &stanza);
    tells_others_apart(subject, id, &stanza);
    survives_damage(subject, id, &stanza);
    is_discreet(subject, id, &stanza);
    lets_go(subject, id, &stanza);
    if let Some(wrong) = subject.wrong {
        let error = wrong().unwrap(id, &stanza).expect_err("a wrong secret");
        let known = matches!(
            error,
            ProtectorError::WrongPassphrase(_)
                | ProtectorError::WrongKeyFile { .. }
                | ProtectorError::WrongPin { .. }
        );
        assert!(known, "{kind}: {error}");
        assert_eq!((subject.make)().unwrap(id, &stanza).unwrap(), Some(key()), "{kind}");
    }
    protector.forget(id).unwrap();
}

fn gives_back<P: Protector + Debug>(subject: &Subject<'_, P>, id: Uuid, stanza: &Stanza) {
    let protector = (subject.make)();
    for _ in 0..2 {
        assert_eq!(protector.unwrap(id, stanza).unwrap(), Some(key()));
    }
    assert_eq!((subject.make)().unwrap(id, stanza).unwrap(), Some(key()), "after a restart");

    let text = serde_json::to_string(stanza).unwrap();
    assert!(text.contains(&format!("\"kind\":\"{}\"", stanza.kind())), "{text}");
    let read: Stanza = serde_json::from_str(&text).unwrap();
    assert_eq!(read, *stanza);
    assert_eq!(serde_json::to_string(&read).unwrap(), text, "one spelling");
    let unknown = format!("{},\"more\":1}}", text.trim_end_matches('}'));
    assert!(serde_json::from_str::<Stanza>(&unknown).is_err(), "{unknown}");

    // Wrapped again it is another stanza wherever something random goes in, and both open.
    let again = protector.wrap(id, &key()).unwrap();
    assert_eq!(again == *stanza, subject.keeps);
    assert_eq!(protector.unwrap(id, &again).unwrap(), Some(key()));
}

fn tells_others_apart<P: Protector + Debug>(subject: &Subject<'_, P>, id: Uuid, stanza: &Stanza) {
    let (protector, other) = ((subject.make)(), Uuid::new_v4());
    let error = protector.unwrap(other, stanza).expect_err("another keystore");
    assert!(matches!(error, ProtectorError::Foreign { .. }), "{error}");
    for name in [id, other] {
        assert!(error.to_string().contains(&name.to_string()), "{error}");
    }
    // The same stanza with the other name in it is no way around.
    let renamed =
        serde_json::to_string(stanza).unwrap().replace(&id.to_string(), &other.to_string());
    let renamed: Stanza = serde_json::from_str(&renamed).unwrap();
    assert!(protector.unwrap(other, &renamed).is_err());

    let strangers = strangers(id);
    assert_eq!(strangers.len(), Kind::ALL.len());
    for stranger in strangers.iter().filter(|stranger| stranger.kind() != protector.kind()) {
        assert_eq!(protector.unwrap(id, stranger).unwrap(), None, "{stranger:?}");
        assert!(!protector.covers(stranger), "{stranger:?}");
    }
}

/// A stanza of each kind.
fn strangers(id: Uuid) -> Vec<Stanza> {
    let ring = format!(r#""keystore":"{id}","fingerprint":"0123456789abcdef""#);
    let work = r#"{"memory_kib":19456,"iterations":2,"parallelism":1}"#;
    [
        format!(
            r#"{{"kind":"passphrase","keystore":"{id}","work":{work},"salt":"","wrapped":""}}"#
        ),
        format!(r#"{{"kind":"secret-service",{ring}}}"#),
        format!(r#"{{"kind":"keyutils",{ring}}}"#),
        format!(
            r#"{{"kind":"pkcs11",{ring},"token":"t","key":"k","key_id":"","iv":"","wrapped":""}}"#
        ),
        format!(r#"{{"kind":"key-file","keystore":"{id}","wrapped":""}}"#),
    ]
    .iter()
    .map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
    .collect()
}

/// Whatever happens to the bytes of a stanza in the file: it never panics, and gives either no key or,
/// when the stanza still says the same, the right one.
fn survives_damage<P: Protector + Debug>(subject: &Subject<'_, P>, id: Uuid, stanza: &Stanza) {
    let text = serde_json::to_string(stanza).unwrap();
    let protector = (subject.make)();
    let look = |damaged: &[u8]| {
        let Ok(read) = serde_json::from_slice::<Stanza>(damaged) else { return };
        let shown = String::from_utf8_lossy(damaged);
        match protector.unwrap(id, &read) {
            Ok(Some(_)) => assert_eq!(read, *stanza, "{shown}"),
            Ok(None) => assert!(!protector.covers(&read), "{shown}"),
            Err(error) => assert_ne!(read, *stanza, "{error}: {shown}"),
        }
    };
    for at in 0..text.len() {
        for flip in [0x01, 0x02, 0x80] {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= flip;
            look(&damaged);
        }
        look(&text.as_bytes()[..at]);
    }
    // Values cut short, in a stanza that is well formed all the same.
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (name, value) in &fields {
        let Some(value) = value.as_str().filter(|_| name != "kind") else { continue };
        for length in 0..value.len() {
            let mut damaged = fields.clone();
            damaged.insert(name.clone(), value[..length].into());
            look(&serde_json::to_vec(&damaged).unwrap());
        }
    }
}

fn is_discreet<P: Protector + Debug>(subject: &Subject<'_, P>, id: Uuid, stanza: &Stanza) {
    let protector = (subject.make)();
    protector.unwrap(id, stanza).unwrap();
    let mut shown = format!("{protector:?} {stanza:?} {} {}", protector.label(), stanza.label());
    shown += &serde_json::to_string(stanza).unwrap();
    if let Some(wrong) = subject.wrong {
        let error = wrong().unwrap(id, stanza).unwrap_err();
        shown += &format!("{error} {error:?}");
    }
    for secret in [subject.secret, "167, 167, 167", "a7a7a7", "A7A7A7", "p6enp6"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

fn lets_go<P: Protector + Debug>(subject: &Subject<'_, P>, id: Uuid, stanza: &Stanza) {
    let protector = (subject.make)();
    for _ in 0..2 {
        protector.forget(id).unwrap();
    }
    if subject.keeps {
        let error = protector.unwrap(id, stanza).expect_err("forgotten");
        assert!(matches!(error, ProtectorError::EntryMissing { .. }), "{error}");
        protector.put_back(id, &LockedKey::from_bytes(&[1; 32]).unwrap()).unwrap();
        let error = protector.unwrap(id, stanza).expect_err("another key");
        assert!(matches!(error, ProtectorError::OtherKey { .. }), "{error}");
    }
    protector.put_back(id, &key()).unwrap();
    assert_eq!(protector.unwrap(id, stanza).unwrap(), Some(key()));
}

#[test]
fn passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let right = private(&folder.path().join("right"), SECRET.as_bytes());
    let wrong = private(&folder.path().join("wrong"), b"battery staple");
    let with = |path: &Path| {
        Passphrase::with_work(PassphraseSource::File(path.to_owned()), Argon2Params::FLOOR)
    };
    conforms(&Subject {
        make: &|| with(&right),
        wrong: Some(&|| with(&wrong)),
        secret: SECRET,
        keeps: false,
    });
}

#[test]
fn key_file() {
    use sso_protector::{KeyFile, KeyFileSource};

    let folder = tempfile::tempdir().unwrap();
    let right = private(&folder.path().join("right"), b"0123456789abcdef0123456789abcdef");
    let wrong = private(&folder.path().join("wrong"), &[9; 32]);
    let with =
        |path: &Path| KeyFile::new(KeyFileSource { file: Some(path.into()), credential: None });
    conforms(&Subject {
        make: &|| with(&right),
        wrong: Some(&|| with(&wrong)),
        secret: "cdef0123",
        keeps: false,
    });
}

#[test]
fn keyutils() {
    // A session keyring of its own, as a new process would have.
    let worker = thread::spawn(|| match OsKeyring::keyutils() {
        Ok(_) => conforms(&Subject {
            make: &|| OsKeyring::keyutils().unwrap(),
            wrong: None,
            secret: SECRET,
            keeps: true,
        }),
        Err(error) => {
            eprintln!("NOT TESTED: this kernel gives no keyring: {error}");
            let excused = variable("SSO_WITHOUT_KEYUTILS").is_some();
            assert!(excused, "not tested: {error}. SSO_WITHOUT_KEYUTILS=1 excuses this");
        }
    });
    worker.join().unwrap();
}

fn installed(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|at| Path::new(at).join(program).exists())
}

/// Whether the test can run; fails where it has to.
fn have(programs: &[&str], requirement: &str) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !installed(program)).collect();
    if !missing.is_empty() {
        assert!(variable(requirement).is_none(), "not installed: {missing:?}");
        eprintln!("NOT TESTED, because {missing:?} is not installed");
    }
    missing.is_empty()
}

/// Runs the test `name` of this program in a process of its own.
fn inside(command: &mut Command, name: &str, folder: &Path) {
    let output = command
        .arg("--exact")
        .arg(name)
        .arg("--nocapture")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .env("SOFTHSM2_CONF", folder.join("softhsm2.conf"))
        .env(INSIDE, folder)
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[cfg(feature = "secret-service")]
#[test]
fn secret_service() {
    if variable(INSIDE).is_some() {
        return conforms(&Subject {
            make: &|| OsKeyring::secret_service().unwrap(),
            wrong: None,
            secret: SECRET,
            keeps: true,
        });
    }
    if !have(&["dbus-run-session", "gnome-keyring-daemon"], "SSO_REQUIRE_SECRET_SERVICE") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let script = "printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null \
                  && exec \"$0\" \"$@\"";
    let mut command = Command::new("dbus-run-session");
    command.args(["--", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
    inside(&mut command, "secret_service", home.path());
}

/// Where distributions put SoftHSM.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

fn module() -> PathBuf {
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    found.expect("softhsm2-util comes with its library")
}

#[test]
fn pkcs11() {
    if let Some(folder) = variable(INSIDE) {
        return beside_a_token(&folder);
    }
    if !have(&["softhsm2-util"], "SSO_REQUIRE_PKCS11") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = folder.path().join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    for label in ["sso", "other", "twice", "twice"] {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", "12345678"])
            .args(["--pin", PIN])
            .env("SOFTHSM2_CONF", &conf)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    inside(&mut Command::new(std::env::current_exe().unwrap()), "pkcs11", folder.path());
}

fn at(token: &str, key: &str) -> TokenKey {
    TokenKey { module: module(), token: token.to_owned(), key: key.to_owned() }
}

fn open(token: &str, key: &str, pin: &Path) -> Pkcs11 {
    Pkcs11::open(at(token, key), PassphraseSource::File(pin.to_owned())).unwrap()
}

fn beside_a_token(folder: &Path) {
    let right = private(&folder.join("right"), format!("{PIN}\n").as_bytes());
    let wrong = private(&folder.join("wrong"), b"000000");
    conforms(&Subject {
        make: &|| open("sso", "keystore", &right),
        wrong: Some(&|| open("sso", "keystore", &wrong)),
        secret: PIN,
        keeps: false,
    });
    let id = Uuid::new_v4();
    let stanza = open("sso", "keystore", &right).wrap(id, &key()).unwrap();
    assert_eq!(stanza.label(), "sso/keystore");

    // A wrong PIN is tried once by one protector, whatever is in the file by then.
    let pin = private(&folder.join("pin"), b"000000");
    let protector = open("sso", "keystore", &pin);
    let error = protector.unwrap(id, &stanza).unwrap_err().to_string();
    assert!(error.contains("not tried again") && error.contains("lock"), "{error}");
    private(&pin, PIN.as_bytes());
    let error = protector.unwrap(id, &stanza).unwrap_err();
    assert!(matches!(error, ProtectorError::WrongPin { .. }), "{error}");
    assert_eq!(open("sso", "keystore", &pin).unwrap(id, &stanza).unwrap(), Some(key()));

    // Another token or another key: not its stanza.
    for (token, name) in [("other", "keystore"), ("sso", "another")] {
        assert_eq!(open(token, name, &right).unwrap(id, &stanza).unwrap(), None);
    }
    // The key of that name in another token is not the one that wrapped.
    let text = serde_json::to_string(&stanza).unwrap().replace("\"sso\"", "\"other\"");
    let moved: Stanza = serde_json::from_str(&text).unwrap();
    let error = open("other", "keystore", &right).unwrap(id, &moved).unwrap_err();
    assert!(error.to_string().contains("no key keystore"), "{error}");

    for (module, token, words) in [
        (PathBuf::from("/nowhere/lib.so"), "sso", "no library /nowhere/lib.so"),
        (right.clone(), "sso", "fails"),
        (module(), "absent", "not there"),
        (module(), "twice", "two tokens"),
    ] {
        let key = TokenKey { module, ..at(token, "keystore") };
        let error = Pkcs11::open(key, PassphraseSource::Prompt).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(token), "{error}");
    }
    fs::set_permissions(&right, fs::Permissions::from_mode(0o640)).unwrap();
    let error = open("sso", "keystore", &right).unwrap(id, &stanza).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    fs::set_permissions(&right, fs::Permissions::from_mode(0o600)).unwrap();

    keys_stay_in_the_token(&open("sso", "loose", &right));
}

/// What the protector made cannot be read, and a key that can is not used.
fn keys_stay_in_the_token(loose: &Pkcs11) {
    use cryptoki::{
        context::Pkcs11 as Module,
        mechanism::Mechanism,
        object::{Attribute, AttributeType},
        session::UserType,
        types::AuthPin,
    };

    // Initialised by the protector, in this process.
    let module = Module::new(module()).unwrap();
    let slots = module.get_slots_with_initialized_token().unwrap();
    let label = |slot| module.get_token_info(slot).unwrap().label().to_owned();
    let slot = slots.into_iter().find(|&slot| label(slot) == "sso").unwrap();
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned()))).unwrap();
    let found = session.find_objects(&[Attribute::Label(b"keystore".to_vec())]).unwrap();
    assert_eq!(found.len(), 1, "it was made once");
    let wanted = [
        AttributeType::Sensitive,
        AttributeType::AlwaysSensitive,
        AttributeType::Extractable,
        AttributeType::NeverExtractable,
        AttributeType::ValueLen,
        AttributeType::Value,
    ];
    let attributes = session.get_attributes(found[0], &wanted).unwrap();
    for attribute in [
        Attribute::Sensitive(true),
        Attribute::AlwaysSensitive(true),
        Attribute::Extractable(false),
        Attribute::NeverExtractable(true),
        Attribute::ValueLen(32.into()),
    ] {
        assert!(attributes.contains(&attribute), "{attribute:?}");
    }
    assert!(!attributes.iter().any(|attribute| matches!(attribute, Attribute::Value(_))));

    let template = [
        Attribute::Token(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Label(b"loose".to_vec()),
        Attribute::Id(vec![1]),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    session.logout().unwrap();
    drop(session);
    let error = loose.wrap(Uuid::new_v4(), &key()).unwrap_err().to_string();
    assert!(error.contains("can be taken out"), "{error}");
}

#[test]
fn what_cannot_be_used_is_left_out_only_when_something_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let passphrase = ProtectorSettings::Passphrase {
        passphrase_file: Some(private(&folder.path().join("right"), SECRET.as_bytes())),
        credential: None,
    };
    let token = ProtectorSettings::Pkcs11 {
        module: "/nowhere/lib.so".into(),
        token: "sso".into(),
        key: "keystore".into(),
        pin_file: None,
        credential: None,
    };
    let both = [token.clone(), passphrase];
    let kinds = |made: Vec<Box<dyn Protector>>| made.iter().map(|it| it.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(protectors(&both, true).unwrap()), [Kind::Passphrase]);
    for refused in [protectors(&both, false).err(), protectors(&[token], true).err()] {
        let error = refused.expect("the token is not there").to_string();
        assert!(error.contains("/nowhere/lib.so"), "{error}");
    }
}
