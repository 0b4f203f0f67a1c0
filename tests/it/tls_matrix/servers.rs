//! The other side: our client judges servers, by the same rules.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sso_core::{
    connector::ClientTls,
    tls::{RevocationPolicy, TlsSettings, TrustSettings},
};
use tokio::runtime::Runtime;

use super::{
    oracle::{Outcome, Policy, Variant, Version, expected},
    peers::{Seen, Target, served_by},
    resume::{Session, resume},
    subject::zoo_lists,
    zoo::{Files, Kind, Zoo, client, replace},
};

/// The settings that a server of HTTP/2 sends first, without any.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// What a client of HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What such a server answers to whom it cannot serve: the connection ends.
const GO_AWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0c";

/// A server that shows this, and says farewell to everybody who believes it. Returns its address.
fn listen(files: &Files) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    let chain = CertificateDer::pem_file_iter(&files.certificate).expect("certificates");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            // An error is the client's, who does not believe it.
            thread::spawn(move || greet(socket, config).is_ok());
        }
    });
    address
}

fn greet(socket: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    stream.write_all(SETTINGS)?;
    stream.read_exact(&mut [0; PREFACE.len()])?;
    stream.write_all(GO_AWAY)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn policy(policy: Policy) -> RevocationPolicy {
    match policy {
        Policy::HardFail => RevocationPolicy::HardFail,
        Policy::SoftFail => RevocationPolicy::SoftFail,
        Policy::Off => RevocationPolicy::Off,
    }
}

/// A client with a certificate and one without, both with these lists.
fn clients(trust: &Trust<'_>, variant: Variant) -> [ClientTls; 2] {
    let mut settings = TlsSettings::new(&trust.own.certificate, &trust.own.key, trust.ca);
    settings.crl = vec![trust.list.to_path_buf().into()];
    settings.revocation = Some(policy(variant.policy));
    let mut anonymous = TrustSettings::new(trust.ca);
    anonymous.crl = settings.crl.clone();
    anonymous.revocation = settings.revocation;
    [
        ClientTls::load(&settings).expect("a client"),
        ClientTls::without_certificate(&anonymous).expect("a client"),
    ]
}

struct Trust<'t> {
    own: &'t Files,
    ca: &'t Path,
    list: &'t Path,
}

#[test]
fn our_client_speaks_to_servers_it_may_speak_to() {
    let runtime = Runtime::new().expect("a runtime");
    let zoo = Zoo::of_servers();
    let own = zoo.root.issue(client("Client", "user")).write(zoo.folder(), "client");
    let (ca, list) = (zoo.folder().join("ca.crt"), zoo.folder().join("ca.crl"));
    replace(&ca, zoo.root.pem().as_bytes());
    let servers: Vec<_> =
        Kind::ALL.iter().filter_map(|&kind| Some((kind, listen(zoo.files(kind)?)))).collect();
    let mut wrong = Vec::new();
    for policy in Variant::POLICIES {
        for lists in Variant::LISTS {
            let variant = Variant::of(Version::Tls13, policy, lists);
            // A file without any list is none: there has to be one of somebody.
            let text = zoo_lists(&zoo, lists)
                + &zoo.other.list(&[], super::zoo::always()).pem().expect("PEM");
            replace(&list, text.as_bytes());
            let _guard = runtime.enter();
            let trust = Trust { own: &own, ca: &ca, list: &list };
            for tls in clients(&trust, variant) {
                for (kind, address) in &servers {
                    let wanted = expected(variant, Version::Tls13, *kind);
                    let seen =
                        runtime.block_on(served_by(&format!("https://{address}"), tls.clone()));
                    if let Some(what) = mismatch(wanted, &seen) {
                        wrong.push(format!("{variant:?} {kind:?}, {wanted:?} expected: {what}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of it is wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A server that is believed ends the connection, for no reason of TLS.
fn mismatch(wanted: Outcome, seen: &Seen) -> Option<String> {
    let Seen::Refused { reason, words, .. } = seen else {
        return Some("such a server cannot serve".to_owned());
    };
    let why = match wanted {
        Outcome::Served | Outcome::LetThrough(_) => None,
        Outcome::Refused(why) => Some(why),
    };
    let told = why.is_none_or(|why| words.contains(why));
    (*reason != why || !told).then(|| format!("{reason:?}: {words}"))
}

/// The client that is to show that nothing is resumed would do it where it can.
#[test]
fn a_client_that_can_resume_does() {
    if !super::peers::has_openssl() {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    let zoo = Zoo::of_servers();
    let ca = zoo.folder().join("ca.crt");
    replace(&ca, zoo.root.pem().as_bytes());
    let files = zoo.files(Kind::Good).expect("files");
    let target = Target { address: listen(files), ca };
    for version in [Version::Tls12, Version::Tls13] {
        let kept = zoo.folder().join(format!("{version:?}.session"));
        let first = runtime.block_on(resume(&target, version, files, &kept));
        let again = runtime.block_on(resume(&target, version, files, &kept));
        assert_eq!((first, again), (Session::New, Session::Resumed), "{version:?}");
    }
}
