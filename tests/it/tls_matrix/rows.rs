//! Rows of the list of security cases, against the real server: what broke elsewhere does not break
//! here.

use std::{net::TcpStream, path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CustomExtension, KeyPair, PKCS_RSA_SHA256, PublicKeyData};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use sso_tests::load::accounting::processor_time;
use tokio::runtime::Runtime;

use super::{
    oracle::{self, Lists, Policy, Variant, Version},
    peers::{Peer, Seen},
    resume::{Session, resume},
    subject::{Refusal, Subject},
    zoo::{Authority, Files, Kind, ROOT, client},
};

/// How often each adversarial certificate is shown.
const ROUNDS: usize = 20;

fn started() -> Subject {
    let mut subject = Subject::prepare();
    subject.write_lists(Lists::Good);
    subject.start_variant(Version::Tls13, Policy::HardFail);
    subject
}

/// What the log says of a client of ours that shows these; none when it was served.
fn ask(subject: &Subject, runtime: &Runtime, files: &Files) -> Option<Refusal> {
    let log = subject.log_length();
    let target = subject.target();
    let asked = Peer::Own.ask(&target, Version::Tls13, (Kind::Good, Some(files)));
    match runtime.block_on(asked) {
        Seen::Served => None,
        Seen::Refused { .. } => {
            let refusals = subject.refusals(log, 1);
            Some(refusals.into_iter().next().expect("a line in the log"))
        }
    }
}

/// Row 2.
#[test]
fn nothing_is_resumed_and_a_revoked_client_stays_out() {
    if !super::peers::has_openssl() {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    let mut subject = Subject::prepare();
    for version in Variant::MINIMA {
        subject.write_lists(Lists::Good);
        subject.start_variant(version, Policy::HardFail);
        let (target, files) = (subject.target(), subject.zoo.files(Kind::Good).expect("files"));
        let kept = subject.zoo.folder().join(format!("{version:?}.session"));
        let first = runtime.block_on(resume(&target, version, files, &kept));
        let again = runtime.block_on(resume(&target, version, files, &kept));
        assert_eq!((first, again), (Session::New, Session::New), "{version:?}");

        let files = files.clone();
        let list = subject.zoo.root.list(&subject.zoo.serials(&[Kind::Good]), super::zoo::always());
        let text = subject.own_list(&[]) + &list.pem().expect("PEM");
        super::zoo::replace(&subject.lists_file(), text.as_bytes());
        subject.reload();
        let log = subject.log_length();
        let revoked = runtime.block_on(resume(&target, version, &files, &kept));
        assert_eq!(revoked, Session::Refused, "{version:?}");
        let refusals = subject.refusals(log, 1);
        assert_eq!(refusals[0].reason, oracle::CERTIFICATE_REVOKED, "{version:?}");
    }
}

/// Row 10.
#[test]
fn serial_numbers_and_names_alone_make_nobody() {
    let subject = started();
    let runtime = Runtime::new().expect("a runtime");
    let zoo = &subject.zoo;
    let params_of = |kind: Kind| {
        let mut params = client(&format!("{kind:?}"), "user");
        params.serial_number = zoo.serials(&[kind]).into_iter().next();
        params
    };
    // The names, the issuer's name and the number of a good one, by other keys.
    let good = zoo.files(Kind::Good).expect("files");
    for authority in [&zoo.namesake, &zoo.other] {
        let forged = authority.issue(params_of(Kind::Good)).write(zoo.folder(), "forged");
        assert_eq!(forged.serial, good.serial);
        let refusal = ask(&subject, &runtime, &forged).expect("a refusal");
        assert_eq!(refusal.reason, oracle::UNTRUSTED_ISSUER);
        assert_eq!(refusal.thumbprint, forged.thumbprint);
    }
    // And the number of a revoked one, by another trusted authority: the list is about its own.
    let same_number = subject.own.issue(params_of(Kind::Revoked)).write(zoo.folder(), "same");
    assert_eq!(ask(&subject, &runtime, &same_number), None);
}

/// Row 11, beside the matrix: a list in somebody else's name does not take the place of a good one.
#[test]
fn a_list_that_the_authority_did_not_sign_is_not_put_to_use() {
    let mut subject = started();
    let runtime = Runtime::new().expect("a runtime");
    for lists in [Lists::Namesake, Lists::Good] {
        subject.write_lists(lists);
        if lists == Lists::Namesake {
            subject.reload_in_vain();
        } else {
            subject.reload();
        }
        let ask = |kind| ask(&subject, &runtime, subject.zoo.files(kind).expect("files"));
        assert_eq!(ask(Kind::Good), None);
        let refusal = ask(Kind::Revoked).expect("a refusal");
        assert_eq!(refusal.reason, oracle::CERTIFICATE_REVOKED);
    }
}

/// Row 12.
#[test]
fn leaves_and_authorities_out_of_bounds_sign_nobody() {
    let subject = started();
    let runtime = Runtime::new().expect("a runtime");
    let zoo = &subject.zoo;
    let leaf = zoo.root.issue(client("Leaf", "user")).into_authority();
    let low = zoo.root.below_with("Low", BasicConstraints::Constrained(0));
    let lower = low.below("Lower");
    let chains: [(&Authority, String); 2] =
        [(&leaf, leaf.pem().to_owned()), (&lower, lower.pem().to_owned() + low.pem())];
    for (authority, chain) in chains {
        let signed = authority.issue(client("Signed", "user")).with_chain(&chain);
        let files = signed.write(zoo.folder(), "signed");
        let refusal = ask(&subject, &runtime, &files).expect("a refusal");
        let known = [oracle::UNTRUSTED_ISSUER, oracle::CERTIFICATE_UNUSABLE];
        assert!(known.contains(&refusal.reason.as_str()), "{refusal:?}");
        assert_eq!(refusal.thumbprint, files.thumbprint);
    }
}

/// A public key of any size that nobody has the private one of: the fields of RSA with this many bytes
/// of modulus.
struct Large(Vec<u8>);

impl Large {
    fn rsa(bits: usize) -> Self {
        let mut modulus = vec![0xff; bits / 8];
        modulus.insert(0, 0);
        let field = |content: &[u8]| {
            let length = u16::try_from(content.len()).expect("a short field").to_be_bytes();
            [&[2, 0x82, length[0], length[1]], content].concat()
        };
        let fields = [field(&modulus), vec![2, 3, 1, 0, 1]].concat();
        let length = u16::try_from(fields.len()).expect("a short key").to_be_bytes();
        Self([&[0x30, 0x82, length[0], length[1]], &fields[..]].concat())
    }
}

impl PublicKeyData for Large {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// Shows certificates whose key it does not have.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesClientCert for Impostor {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that shows these, and signs with some key.
fn impostor(ca: &Path, chain: Vec<CertificateDer<'static>>) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = KeyPair::generate().expect("a key").serialize_der();
    let key = PrivateKeyDer::try_from(key).expect("PKCS #8");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("PEM")).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Impostor(Arc::new(CertifiedKey::new(chain, key)))));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Connects, and returns the words of the refusal.
fn refused(subject: &Subject, config: &Arc<ClientConfig>) -> String {
    let mut socket = TcpStream::connect(subject.target().address).expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
    let name = "127.0.0.1".try_into().expect("a name");
    let mut session = ClientConnection::new(Arc::clone(config), name).expect("a session");
    loop {
        match session.complete_io(&mut socket) {
            Ok((0, 0)) => return "the end".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// Row 23.
#[test]
fn adversarial_certificates_cost_little() {
    let mut subject = started();
    let zoo = &subject.zoo;
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    // Authorities of one name sign each other: every one could stand at every place of a path.
    let mut same = vec![Authority::root(ROOT)];
    for _ in 0..100 {
        let last = same.last().expect("one");
        same.push(last.below(ROOT));
    }
    let mut maze = vec![same[50].issue(client("Maze", "user")).der().clone()];
    maze.extend(same.iter().map(|authority| der(authority.pem())));
    let short: Vec<_> = maze.iter().take(5).cloned().collect();
    let large = Large::rsa(8192);
    let large_leaf = zoo.root.issue_for(&client("Large", "user"), &large).der().clone();
    let large_authority = zoo.root.issue_for(&client("Large", "user"), &large).der().clone();
    let mut padded = client("Padded", "user");
    let padding = vec![7; 40_000];
    padded.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], padding));
    let good = zoo.root.issue(client("Good", "user")).der().clone();
    let cases = [
        ("a hundred certificates", maze, oracle::CERTIFICATE_UNUSABLE),
        ("as many as are looked at", short, oracle::UNTRUSTED_ISSUER),
        ("a key of 8192 bits", vec![large_leaf], oracle::CERTIFICATE_UNUSABLE),
        ("such an authority", vec![good, large_authority], oracle::CERTIFICATE_UNUSABLE),
        ("a large one", vec![zoo.root.issue(padded).der().clone()], oracle::CERTIFICATE_UNUSABLE),
    ];
    let (target, pid) = (subject.target(), subject.system.server(1).id());
    let cost = |chain: &[CertificateDer<'static>], reason: &str| {
        let config = impostor(&target.ca, chain.to_vec());
        let (log, before) = (subject.log_length(), processor_time(pid));
        for _ in 0..ROUNDS {
            let words = refused(&subject, &config);
            assert!(words.contains("alert"), "{words}");
        }
        let cost = processor_time(pid).saturating_sub(before);
        let refusals = subject.refusals(log, ROUNDS);
        assert_eq!(refusals.len(), ROUNDS);
        assert!(refusals.iter().all(|refusal| refusal.reason == reason), "{refusals:?}");
        cost
    };
    // The yardstick: one small certificate that is refused.
    let plain = zoo.other.issue(client("Plain", "user")).der().clone();
    let plain = cost(&[plain], oracle::UNTRUSTED_ISSUER);
    for (what, chain, reason) in &cases {
        let cost = cost(chain, reason);
        println!("{ROUNDS} times {what}: {cost:?}, a plain one: {plain:?}");
        assert!(cost < 10 * plain + Duration::from_secs(1), "{what}: {cost:?}, plain {plain:?}");
    }
    let runtime = Runtime::new().expect("a runtime");
    let files = subject.zoo.files(Kind::Good).expect("files");
    assert_eq!(ask(&subject, &runtime, files), None);
}
