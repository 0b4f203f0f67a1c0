//! Who goes before whom.

use super::*;

const FILE: &str = r#"
version = 1
default = "user"
[profile.user]
addr = "https://user.example:7400"
ca = "ca.crt"
cert = "user.crt"
key = "/keys/user.key"
[profile.admin]
addr = "https://admin.example:7400"
cert = "admin.crt"
allow_development = true
"#;

/// A folder with a profiles file, and the environment that points to it.
fn environment(extra: &[(&'static str, &str)]) -> (tempfile::TempDir, Environment) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profiles.toml");
    std::fs::write(&file, FILE).unwrap();
    let extra: BTreeMap<_, _> = extra.iter().copied().collect();
    let environment = Environment::from_lookup(|name| match name {
        "SSO_CONFIG" => Some(file.clone().into_os_string()),
        name => extra.get(name).map(OsString::from),
    });
    (folder, environment)
}

fn with_profile(name: &str) -> Overrides {
    Overrides { profile: Some(name.to_owned()), ..Overrides::default() }
}

#[test]
fn the_default_profile_with_paths_relative_to_its_file() {
    let (folder, environment) = environment(&[]);
    let profile = Profile::resolve(&Overrides::default(), &environment).unwrap();
    assert_eq!(profile.addr, "https://user.example:7400");
    assert_eq!(profile.ca, Some(folder.path().join("ca.crt")));
    assert_eq!(profile.key.as_deref(), Some(Path::new("/keys/user.key")));
    assert!(!profile.allow_development);
}

#[test]
fn each_item_on_its_own_from_the_first_that_has_it() {
    let (folder, environment) = environment(&[
        ("SSO_PROFILE", "user"),
        ("SSO_ADDR", "https://variable.example:1"),
        ("SSO_CA", "/variable/ca"),
        ("SSO_KEY", "/variable/key"),
    ]);
    let overrides = Overrides { key: Some("/flag/key".into()), ..with_profile("admin") };
    let profile = Profile::resolve(&overrides, &environment).unwrap();
    assert_eq!(profile.addr, "https://admin.example:7400", "a named profile beats a variable");
    assert_eq!(profile.ca, Some("/variable/ca".into()), "what the profile lacks");
    assert_eq!(profile.cert, Some(folder.path().join("admin.crt")));
    assert_eq!(profile.key, Some("/flag/key".into()), "a flag beats all");
    assert!(profile.allow_development);

    let profile = Profile::resolve(&Overrides::default(), &environment).unwrap();
    assert_eq!(profile.addr, "https://user.example:7400", "SSO_PROFILE names a profile");
}

#[test]
fn variables_beat_the_default_profile() {
    let (_folder, environment) = environment(&[("SSO_ADDR", "https://variable.example:1")]);
    let profile = Profile::resolve(&Overrides::default(), &environment).unwrap();
    assert_eq!(profile.addr, "https://variable.example:1");
}

#[test]
fn revocation_lists_are_optional_and_take_the_same_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profiles.toml");
    let text = "version = 1\ndefault = \"a\"\n[profile.a]\naddr = \"https://a.example:1\"\n\
                ca = \"ca\"\ncert = \"c\"\nkey = \"k\"\n";
    let environment = Environment { config: Some(file.clone()), ..Environment::default() };
    let crl = |overrides: &Overrides, environment: &Environment| {
        Profile::resolve(overrides, environment).unwrap().crl
    };
    std::fs::write(&file, text).unwrap();
    assert_eq!(crl(&Overrides::default(), &environment), []);

    std::fs::write(&file, format!("{text}crl = \"ca.crl\"\n")).unwrap();
    let list = |path: &Path| ListSource::File(path.to_owned());
    let own = [list(&folder.path().join("ca.crl"))];
    assert_eq!(crl(&Overrides::default(), &environment), own, "relative to the file");
    let variable = Environment { crl: Some("/variable/crl".into()), ..environment.clone() };
    let of_variable = [list(Path::new("/variable/crl"))];
    assert_eq!(crl(&Overrides::default(), &variable), of_variable);
    assert_eq!(crl(&with_profile("a"), &variable), own, "a named profile beats a variable");
    let flags = vec![list(Path::new("/flag/crl")), ListSource::Url("http://pki/ca.crl".into())];
    let flag = Overrides { crl: flags.clone(), ..with_profile("a") };
    assert_eq!(crl(&flag, &variable), flags);

    let several = "crl = [\"ca.crl\", \"https://pki.example/ca.crl\"]\n";
    std::fs::write(&file, format!("{text}{several}")).unwrap();
    let url = ListSource::Url("https://pki.example/ca.crl".into());
    assert_eq!(crl(&Overrides::default(), &environment), [own[0].clone(), url]);
    let bad = Environment { crl: Some("ftp://pki.example/ca.crl".into()), ..environment };
    let error = Profile::resolve(&Overrides::default(), &bad).unwrap_err().to_string();
    assert!(error.contains("SSO_CRL") && error.contains("https://"), "{error}");
}

#[test]
fn a_profile_says_how_strict_tls_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profiles.toml");
    let text = "version = 1\ndefault = \"a\"\n[profile.a]\naddr = \"https://a.example:1\"\n\
                ca = \"ca\"\ncert = \"c\"\nkey = \"k\"\n";
    let resolve = |keys: &str, overrides: &Overrides| {
        std::fs::write(&file, format!("{text}{keys}")).unwrap();
        let environment = Environment { config: Some(file.clone()), ..Environment::default() };
        Profile::resolve(overrides, &environment)
    };
    let keys = "key_passphrase_file = \"k.pass\"\nrevocation = \"soft-fail\"\n\
                minimum_version = \"1.2\"\ncrl_cache = \"lists\"\n";
    let profile = resolve(keys, &Overrides::default()).unwrap();
    assert_eq!(profile.key_passphrase_file, Some(folder.path().join("k.pass")));
    assert_eq!(profile.revocation, Some(RevocationPolicy::SoftFail));
    assert_eq!(profile.minimum_version, TlsVersion::V1_2);
    assert_eq!(profile.crl_cache, Some(folder.path().join("lists")));
    let plain = resolve("", &Overrides::default()).unwrap();
    assert_eq!((plain.revocation, plain.minimum_version), (None, TlsVersion::V1_3));
    // A passphrase is that of its own key.
    let other = Overrides { key: Some("/flag/key".into()), ..Overrides::default() };
    assert_eq!(resolve(keys, &other).unwrap().key_passphrase_file, None);
    for (bad, named) in [
        ("minimum_version = \"1.1\"\n", "nothing older can be"),
        ("revocation = \"maybe\"\n", "maybe"),
        ("crl = []\n", "leave it out"),
    ] {
        let error = resolve(bad, &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_token_or_a_certificate_whichever_is_named_first() {
    let (_folder, environment) = environment(&[("SSO_TOKEN_FILE", "/variable/token")]);
    let resolve = |overrides: &Overrides| Profile::resolve(overrides, &environment).unwrap();
    let identity = |profile: Profile| (profile.token_file, profile.cert.is_some());
    let variable = Some(PathBuf::from("/variable/token"));
    assert_eq!(identity(resolve(&Overrides::default())), (variable, false), "before the default");
    assert_eq!(identity(resolve(&with_profile("user"))), (None, true), "a named profile before");
    let flag = Overrides { token_file: Some("/flag/token".into()), ..with_profile("user") };
    assert_eq!(identity(resolve(&flag)), (Some("/flag/token".into()), false));
    let both = Overrides { cert: Some("c".into()), key: Some("k".into()), ..flag };
    assert_eq!(identity(resolve(&both)), (Some("/flag/token".into()), true), "as was asked for");
}

#[test]
fn a_socket_needs_neither_certificates_nor_tokens() {
    let socket = Overrides { addr: Some("unix:///run/sso.sock".into()), ..Overrides::default() };
    let profile = Profile::resolve(&socket, &Environment::default()).unwrap();
    assert_eq!((profile.ca, profile.cert, profile.token_file), (None, None, None));
    let tls = Overrides { addr: Some("https://a:1".into()), ..Overrides::default() };
    for (given, wanted) in [
        (tls.clone(), "--ca"),
        (Overrides { ca: Some("ca".into()), ..tls.clone() }, "--cert"),
        (Overrides { ca: Some("ca".into()), key: Some("k".into()), ..tls.clone() }, "--cert"),
        (Overrides { ca: Some("ca".into()), cert: Some("c".into()), ..tls.clone() }, "--key"),
    ] {
        let error = Profile::resolve(&given, &Environment::default()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let token = Overrides { ca: Some("ca".into()), token_file: Some("t".into()), ..tls };
    assert!(Profile::resolve(&token, &Environment::default()).is_ok());
}

#[test]
fn the_master_has_an_address_of_its_own_and_no_token() {
    let master = |extra: &[(&'static str, &str)], overrides: &Overrides| {
        let (folder, environment) = environment(extra);
        let file = folder.path().join("profiles.toml");
        let text = FILE.replace("[profile.admin]", "[profile.admin]\nmaster = \"unix:///m.sock\"");
        std::fs::write(file, text).unwrap();
        Profile::resolve_master(overrides, &environment)
    };
    let https = ("SSO_MASTER", "https://m.example:7410");
    assert_eq!(master(&[], &with_profile("admin")).unwrap().addr, "unix:///m.sock");
    assert_eq!(master(&[https], &with_profile("admin")).unwrap().addr, "unix:///m.sock");
    let profile = master(&[https, ("SSO_TOKEN_FILE", "/t")], &Overrides::default()).unwrap();
    assert_eq!((profile.addr.as_str(), profile.token_file.as_deref()), (https.1, None));
    assert!(profile.cert.is_some());
    let flag = Overrides { master: Some("unix:///f.sock".into()), ..with_profile("admin") };
    assert_eq!(master(&[https], &flag).unwrap().addr, "unix:///f.sock");
    let error = master(&[], &Overrides::default()).unwrap_err().to_string();
    for way in ["--master", "'master'", "SSO_MASTER"] {
        assert!(error.contains(way), "{error}");
    }
    // The address of a server is no help, and its lack no hindrance.
    let alone = Overrides { master: Some("unix:///f.sock".into()), ..Overrides::default() };
    assert!(Profile::resolve_master(&alone, &Environment::default()).is_ok());
}

#[test]
fn what_is_missing_is_named() {
    let environment = Environment::default();
    let error = Profile::resolve(&Overrides::default(), &environment).unwrap_err();
    assert!(error.to_string().contains("--addr"), "{error}");
    let error = Profile::resolve(&with_profile("x"), &environment).unwrap_err();
    assert!(matches!(error, ProfileError::NoFile { at: None, .. }), "{error}");
    let home = Environment { home: Some("/nobody".into()), ..Environment::default() };
    let error = Profile::resolve(&with_profile("x"), &home).unwrap_err().to_string();
    for part in ["'x'", "/nobody/.config/sso/profiles.toml", "SSO_CONFIG", "sso dev"] {
        assert!(error.contains(part), "{error}");
    }

    let (_folder, environment) = self::environment(&[]);
    let error = Profile::resolve(&with_profile("x"), &environment).unwrap_err().to_string();
    assert!(error.contains("'x'") && error.contains("admin, user"), "{error}");
    let error = Profile::resolve(&with_profile("admin"), &environment).unwrap_err().to_string();
    assert!(error.contains("SSO_CA"), "{error}");
}

#[test]
fn a_file_that_is_pointed_to_must_be_there_and_strict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.toml");
    let environment = Environment { config: Some(file.clone()), ..Environment::default() };
    assert!(matches!(
        Profile::resolve(&Overrides::default(), &environment),
        Err(ProfileError::File(_))
    ));
    std::fs::write(&file, "version = 1\n[profile.a]\nadress = \"x\"\n").unwrap();
    let error = Profile::resolve(&Overrides::default(), &environment).unwrap_err().to_string();
    assert!(error.contains("adress"), "{error}");
}

#[test]
fn where_the_file_is() {
    let at = |environment: Environment| environment.profiles_file();
    let home = Some(PathBuf::from("/home/u"));
    assert_eq!(
        at(Environment { home: home.clone(), ..Environment::default() }),
        Some("/home/u/.config/sso/profiles.toml".into())
    );
    let config_home = Some(PathBuf::from("/cfg"));
    assert_eq!(
        at(Environment { home, config_home, ..Environment::default() }),
        Some("/cfg/sso/profiles.toml".into())
    );
    assert_eq!(at(Environment::default()), None);
}
