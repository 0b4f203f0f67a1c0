//! What `sso cert` makes, `openssl` understands, and the other way round.

use std::{fs, process::Command};

use super::{Room, finish, mode};
use crate::cli::Ran;

/// `None`, with a notice, where there is no openssl; that must not be where the tests are required.
fn openssl() -> Option<Ran> {
    let mut command = Command::new("openssl");
    match command.arg("version").output() {
        Ok(_) => Some(finish(&mut command)),
        Err(error) => {
            missing(&error);
            None
        }
    }
}

/// Says that there is no openssl; panics where the tests are required.
pub(crate) fn missing(error: &std::io::Error) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the settings of the tests are in the environment"
    )]
    let set = |name: &str| std::env::var_os(name);
    let required = set("CI").is_some_and(|it| it == "true")
        || set("SSO_REQUIRE_OPENSSL").is_some_and(|it| it == "1");
    assert!(!required, "openssl is required, but cannot be started: {error}");
    eprintln!("openssl cannot be started ({error}): not tested against it");
}

impl Room {
    fn openssl(&self, line: &str) -> Ran {
        let mut command = Command::new("openssl");
        finish(command.args(self.words(line)))
    }

    /// What openssl prints, on both streams, where it has to succeed.
    fn openssl_ok(&self, line: &str) -> String {
        let ran = self.openssl(line);
        assert_eq!(ran.code, 0, "openssl {line}: {}{}", ran.stdout, ran.stderr);
        format!("{}{}", ran.stdout, ran.stderr)
    }

    fn append(&self, to: &str, parts: &[&str]) {
        let texts: String =
            parts.iter().map(|name| fs::read_to_string(self.path(name)).unwrap()).collect();
        fs::write(self.path(to), texts).unwrap();
    }
}

#[test]
fn chains_and_lists_hold() {
    if openssl().is_none() {
        return;
    }
    let room = Room::with_pki();
    room.ok("issue --ca @pki --out @ --name lost --role client");
    let verify = "verify -x509_strict -CAfile @root/ca.crt -untrusted @pki/chain.crt";
    room.openssl_ok(&format!("{verify} -purpose sslclient @gw.crt"));
    assert_ne!(room.openssl(&format!("{verify} -purpose sslserver @gw.crt")).code, 0);

    room.ok("revoke --ca @pki @lost.crt --reason key-compromise");
    room.ok("crl --ca @pki --out @pki.crl");
    room.ok("crl --ca @root --out @root.crl");
    for (list, authority) in [("@pki.crl", "@pki/ca.crt"), ("@root.crl", "@root/ca.crt")] {
        let said = room.openssl_ok(&format!("crl -in {list} -CAfile {authority} -verify -noout"));
        assert!(said.contains("verify OK"), "{said}");
    }
    let text = room.openssl_ok("crl -in @pki.crl -noout -text");
    assert!(text.contains("Key Compromise") && text.contains("X509v3 CRL Number"), "{text}");
    let identifier = |text: &str| {
        let at = text.find("Key Identifier").unwrap();
        text[at..].lines().nth(1).unwrap().trim().to_owned()
    };
    let authority = room.openssl_ok("x509 -in @pki/ca.crt -noout -ext subjectKeyIdentifier");
    assert_eq!(
        identifier(&text),
        identifier(&authority),
        "the list names the key of its authority"
    );

    room.append("lists.pem", &["pki.crl", "root.crl"]);
    let checked = format!("{verify} -crl_check_all -CRLfile @lists.pem");
    room.openssl_ok(&format!("{checked} @gw.crt"));
    let revoked = room.openssl(&format!("{checked} @lost.crt"));
    assert!(revoked.stderr.contains("certificate revoked"), "{}{}", revoked.stdout, revoked.stderr);
    // A list that is over is no list.
    let later = room.openssl(&format!("{checked} -attime 4000000000 @gw.crt"));
    assert_ne!(later.code, 0);

    room.ok("crl --ca @pki --out @pki.der --der --hours 1");
    room.openssl_ok("crl -inform DER -in @pki.der -CAfile @pki/ca.crt -verify -noout");

    // The intermediate authority itself, revoked by its root.
    room.ok("revoke --ca @root @pki/ca.crt --reason ca-compromise");
    room.ok("crl --ca @root --out @root.crl");
    room.append("lists.pem", &["pki.crl", "root.crl"]);
    let revoked = room.openssl(&format!("{checked} @gw.crt"));
    assert!(revoked.stderr.contains("certificate revoked"), "{}", revoked.stderr);
}

#[test]
fn requests_in_both_directions() {
    if openssl().is_none() {
        return;
    }
    let room = Room::with_pki();
    for kind in ["p256", "p384", "ed25519"] {
        room.ok(&format!(
            "request --out @ --name {kind} --key-type {kind} --usage server --dns {kind}.example \
             --subject CN={kind},O=Example,C=DE"
        ));
        let said = room.openssl_ok(&format!("req -in @{kind}.csr -verify -noout -text"));
        assert!(said.contains("verify OK"), "{said}");
        assert!(said.contains(&format!("DNS:{kind}.example")), "{said}");
        assert!(said.contains("TLS Web Server Authentication"), "{said}");
        room.openssl_ok(&format!("pkey -in @{kind}.key -noout -check"));
    }

    // Theirs: RSA, names of several kinds, extensions that the authority decides about itself.
    room.openssl_ok(
        "req -new -newkey rsa:2048 -nodes -keyout @theirs.key -out @theirs.csr \
         -subj /C=DE/O=Example/CN=theirs -addext subjectAltName=DNS:theirs.example,IP:10.0.0.9 \
         -addext extendedKeyUsage=codeSigning",
    );
    room.ok("sign --ca @pki @theirs.csr --out @theirs.crt --usage client --yes");
    let verify = "verify -x509_strict -CAfile @root/ca.crt -untrusted @pki/chain.crt";
    room.openssl_ok(&format!("{verify} -purpose sslclient @theirs.crt"));
    let text = room.openssl_ok("x509 -in @theirs.crt -noout -text");
    assert!(text.contains("DNS:theirs.example") && text.contains("10.0.0.9"), "{text}");
    assert!(!text.contains("Code Signing"), "{text}");
    room.ok(
        "install --certificate @theirs.crt --key @theirs.key --ca @root/ca.crt --out @in --name t",
    );

    for (what, extension, words) in [
        ("authority", "basicConstraints=critical,CA:TRUE", "asks to become an authority"),
        ("usage", "keyUsage=keyCertSign", "asks to become an authority"),
        ("upn", "subjectAltName=otherName:1.3.6.1.4.1.311.20.2.3;UTF8:a@b", "not copied"),
    ] {
        room.openssl_ok(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout @{what}.key \
             -out @{what}.csr -subj /CN={what} -addext {extension}"
        ));
        let line = format!("sign --ca @pki @{what}.csr --out @{what}.crt --usage client --yes");
        room.fails(&line, 2, words);
    }
    // A subject with two parts of one kind would lose one of them.
    room.openssl_ok(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout @two.key -out @two.csr \
         -subj /OU=one/OU=two/CN=x",
    );
    let line = "sign --ca @pki @two.csr --out @two.crt --usage client --yes";
    room.fails(line, 2, "--subject");
    room.ok(&format!("{line} --subject CN=x,OU=one"));
}

#[test]
fn encrypted_keys_in_both_directions() {
    if openssl().is_none() {
        return;
    }
    let room = Room::new();
    room.secret("pass", "canary one");
    room.secret("wrong", "canary two");
    room.ok("request --out @ --name sealed --usage client --passphrase-file @pass");
    room.openssl_ok("pkey -in @sealed.key -passin file:@pass -noout -check");
    assert_ne!(room.openssl("pkey -in @sealed.key -passin file:@wrong -noout").code, 0);
    let text = room.openssl_ok("asn1parse -in @sealed.key");
    for words in ["PBES2", "PBKDF2", "aes-256-cbc", "hmacWithSHA256"] {
        assert!(text.contains(words), "{words}: {text}");
    }

    // Theirs, in every form that is still about.
    room.openssl_ok("genrsa -traditional -out @rsa.key 2048");
    room.openssl_ok("ecparam -name secp384r1 -genkey -out @ec.key");
    room.openssl_ok("genpkey -algorithm ed25519 -out @ed.key");
    room.openssl_ok("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out @p521.key");
    let seal = "pkcs8 -topk8 -in @rsa.key -passout file:@pass";
    room.openssl_ok(&format!("{seal} -out @aes.key"));
    room.openssl_ok(&format!("{seal} -v2 des3 -v2prf hmacWithSHA1 -out @des3.key"));
    room.openssl_ok(&format!("{seal} -scrypt -out @scrypt.key"));
    room.openssl_ok("pkey -in @rsa.key -outform DER -out @der.key");
    for (name, sealed) in [
        ("rsa", false),
        ("ec", false),
        ("ed", false),
        ("der", false),
        ("aes", true),
        ("des3", true),
        ("scrypt", true),
    ] {
        let request = format!("request --out @ --name {name} --key @{name}.key --usage client");
        if sealed {
            room.fails(&request, 2, "--passphrase-file");
            room.fails(&format!("{request} --passphrase-file @wrong"), 1, "passphrase is wrong");
            room.ok(&format!("{request} --passphrase-file @pass"));
        } else {
            room.ok(&request);
        }
        let said = room.openssl_ok(&format!("req -in @{name}.csr -verify -noout"));
        assert!(said.contains("verify OK"), "{name}: {said}");
    }
    room.openssl_ok("rsa -in @rsa.key -aes128 -traditional -passout file:@pass -out @old.key");
    room.fails(
        "request --out @ --name old --key @old.key --usage client --passphrase-file @pass",
        2,
        "openssl pkcs8 -topk8",
    );
    room.openssl_ok(&format!("{seal} -v1 PBE-SHA1-3DES -out @pbes1.key"));
    room.fails(
        "request --out @ --name pbes1 --key @pbes1.key --usage client --passphrase-file @pass",
        2,
        "not supported",
    );
}

#[test]
fn certificates_of_another_authority() {
    if openssl().is_none() {
        return;
    }
    let room = Room::new();
    let ca = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign";
    room.openssl_ok(&format!(
        "req -x509 -newkey rsa:3072 -nodes -keyout @root.key -out @root.crt -days 900 \
         -subj /C=DE/O=Pay/CN=Pay_Root {ca}"
    ));
    fs::write(
        room.path("below.ext"),
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign,cRLSign\n",
    )
    .unwrap();
    fs::write(
        room.path("leaf.ext"),
        "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\n\
         extendedKeyUsage=serverAuth\nsubjectAltName=DNS:pay.example\n\
         crlDistributionPoints=URI:http://pki.pay.example/below.crl\n",
    )
    .unwrap();
    for (name, issuer, subject) in
        [("below", "root", "/O=Pay/CN=Pay_Issuing"), ("leaf", "below", "/CN=pay.example")]
    {
        room.openssl_ok(&format!(
            "req -new -newkey rsa:2048 -nodes -keyout @{name}.key -out @{name}.csr -subj {subject}"
        ));
        room.openssl_ok(&format!(
            "x509 -req -in @{name}.csr -CA @{issuer}.crt -CAkey @{issuer}.key -out @{name}.crt \
             -days 90 -extfile @{name}.ext -set_serial 0x0f{}",
            name.len()
        ));
    }
    room.openssl_ok("x509 -in @leaf.crt -outform DER -out @leaf.der");
    room.append("all.pem", &["leaf.crt", "root.crt", "below.crt"]);
    let text = room.ok("show @all.pem --key @leaf.key");
    let heads: Vec<_> = text.lines().filter(|line| line.contains("CN=")).collect();
    assert_eq!(
        heads,
        ["C=DE, O=Pay, CN=Pay_Root", "└─ O=Pay, CN=Pay_Issuing", "   └─ CN=pay.example"]
    );
    for words in ["RSA 2048", "RSA 3072", "TLS server", "http://pki.pay.example/below.crl"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let document = crate::cli::json(&room.ok("show @leaf.der -o json"));
    for (digest, field) in [("sha1", "thumbprint_sha1"), ("sha256", "thumbprint_sha256")] {
        let said = room.openssl_ok(&format!("x509 -in @leaf.crt -noout -fingerprint -{digest}"));
        let theirs = said.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
        assert_eq!(document["certificates"][0][field], theirs.as_str());
    }

    let install =
        "install --certificate @leaf.der --key @leaf.key --ca @root.crt --out @in --name pay";
    room.fails(install, 1, "O=Pay, CN=Pay_Issuing, which was not given");
    room.fails(&format!("{install} --chain @below.crt --usage client"), 1, "not for TLS clients");
    room.ok(&format!("{install} --chain @below.crt --usage server"));
    assert_eq!(mode(&room.path("in/pay.key")), 0o600);
    room.openssl_ok("verify -CAfile @root.crt -untrusted @in/pay.crt @in/pay.crt");
    let key = fs::read_to_string(room.path("in/pay.key")).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));

    // Their authority can be taken over: it signs here, and openssl follows.
    fs::create_dir(room.path("taken")).unwrap();
    fs::copy(room.path("root.crt"), room.path("taken/ca.crt")).unwrap();
    fs::copy(room.path("root.key"), room.path("taken/ca.key")).unwrap();
    room.ok("issue --ca @taken --out @ --name ours --role client --days 30");
    room.ok("crl --ca @taken --out @taken.crl");
    room.openssl_ok(
        "verify -x509_strict -CAfile @root.crt -crl_check -CRLfile @taken.crl @ours.crt",
    );
    // The parts of its name that would be lost are noticed.
    room.openssl_ok(&format!(
        "req -x509 -newkey rsa:2048 -nodes -keyout @taken/ca.key -out @taken/ca.crt -days 900 \
         -subj /DC=example/DC=corp/CN=Root {ca}"
    ));
    room.fails(
        "issue --ca @taken --out @ --name two --role client --days 30",
        2,
        "several of one kind",
    );
}

#[test]
fn pkcs12_in_both_directions() {
    if openssl().is_none() {
        return;
    }
    let room = Room::with_pki();
    room.secret("pass", "canary one");
    room.secret("wrong", "canary two");
    room.ok("export --certificate @gw.crt --key @gw.key --out @gw.p12 --passphrase-file @pass");
    let said = room.openssl_ok("pkcs12 -in @gw.p12 -passin file:@pass -nodes -info");
    for words in ["PBES2", "PBKDF2", "AES-256-CBC", "hmacWithSHA256", "MAC: sha256"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "leaf and chain: {said}");
    assert_eq!(said.matches("BEGIN PRIVATE KEY").count(), 1, "{said}");
    assert_ne!(room.openssl("pkcs12 -in @gw.p12 -passin file:@wrong -noout").code, 0);

    room.append("chain.pem", &["pki/chain.crt", "root/ca.crt"]);
    let export = "pkcs12 -export -inkey @gw.key -in @gw.crt -certfile @chain.pem -passout file:@pass \
                  -name gateway";
    let mut forms = vec![
        ("new", String::new()),
        ("3des", "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1".to_owned()),
        ("nomac", "-nomac".to_owned()),
        ("open", "-keypbe NONE -certpbe NONE".to_owned()),
        ("many", "-iter 500000".to_owned()),
    ];
    match room.openssl("list -providers -provider legacy").code {
        0 => forms.push(("legacy", "-legacy".to_owned())),
        _ => eprintln!("this openssl has no legacy provider: RC2 is not tested"),
    }
    let key = fs::read_to_string(room.path("gw.key")).unwrap();
    for (name, options) in forms {
        room.openssl_ok(&format!("{export} {options} -out @{name}.p12"));
        let import = format!("import @{name}.p12 --out @in --name {name} --passphrase-file");
        if name != "open" {
            room.fails(&format!("{import} @wrong"), 1, "passphrase is wrong");
        }
        room.ok(&format!("{import} @pass"));
        let read = |file: String| fs::read_to_string(room.path(&file)).unwrap();
        let installed = read(format!("in/{name}.crt"));
        assert_eq!(installed.matches("BEGIN CERTIFICATE").count(), 2, "{name}: without the root");
        room.openssl_ok(&format!(
            "verify -CAfile @root/ca.crt -untrusted @in/{name}.crt @in/{name}.crt"
        ));
        let same = room.openssl_ok(&format!("pkey -in @in/{name}.key -pubout"));
        assert_eq!(same, room.openssl_ok("pkey -in @gw.key -pubout"), "{name}");
        assert_eq!(mode(&room.path(&format!("in/{name}.key"))), 0o600);
    }
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));

    // Without a key: nothing to import.
    room.openssl_ok("pkcs12 -export -nokeys -in @gw.crt -passout file:@pass -out @nokey.p12");
    room.fails("import @nokey.p12 --out @in --name n --passphrase-file @pass", 2, "no private key");
    room.ok("show @nokey.p12 --passphrase-file @pass");
}
