//! What comes to a TLS port besides clients: other protocols, garbage, silence, versions of long ago,
//! and more connections than the process may have. Each is named, and none harms others.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use sso_tests::system::eventually;
use tokio::runtime::Runtime;

use super::{
    oracle::{self, Lists, Policy, Version},
    peers::{Peer, Seen, has_openssl, openssl},
    subject::{Subject, text},
    zoo::Kind,
};

const SOON: Duration = Duration::from_secs(30);
/// Connections that say nothing: more than there are places for handshakes.
const SILENT: usize = 100;
/// File descriptors that are left to a server.
const SPARE: u64 = 16;

fn started(minimum: Version) -> Subject {
    let mut subject = Subject::prepare();
    subject.write_lists(Lists::Good);
    subject.start_variant(minimum, Policy::HardFail);
    subject
}

/// A client of ours is served.
#[track_caller]
fn assert_served(subject: &Subject, runtime: &Runtime) {
    let shown = (Kind::Good, subject.zoo.files(Kind::Good));
    let seen = runtime.block_on(Peer::Own.ask(&subject.target(), Version::Tls13, shown));
    assert!(matches!(seen, Seen::Served), "{seen:?}");
}

fn connect(subject: &Subject) -> TcpStream {
    let socket = TcpStream::connect(subject.target().address).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a time");
    socket
}

/// What the server answers to these bytes until it closes the connection.
fn answer(subject: &Subject, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(subject);
    // A server that has seen enough closes before everything is sent.
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// The head of a hello, and then nothing.
fn half_a_hello() -> Vec<u8> {
    let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend([7; 40]);
    hello
}

#[test]
fn what_is_not_tls_is_named_and_harms_nobody() {
    let subject = started(Version::Tls13);
    let runtime = Runtime::new().expect("a runtime");
    let oversized = [&[22, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat();
    let garbage: [(&str, &[u8]); 6] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("zeros", &[0; 5000]),
        ("ones", &[0xff; 70_000]),
        ("a record of more than its length may be", &oversized),
    ];
    for (what, bytes) in garbage {
        let log = subject.log_length();
        let answer = answer(&subject, bytes);
        // A fatal alert, or nothing.
        assert!(answer.is_empty() || (answer[0] == 21 && answer[5] == 2), "{what}: {answer:?}");
        let refusals = subject.refusals(log, 1);
        let refusal = refusals.first().unwrap_or_else(|| panic!("{what} is not in the log"));
        assert_eq!(
            (refusal.reason.as_str(), refusal.thumbprint.as_str()),
            ("NOT_TLS", ""),
            "{what}"
        );
        assert_served(&subject, &runtime);
    }
    // A port scan says nothing at all.
    drop(connect(&subject));
    assert_served(&subject, &runtime);
}

#[test]
fn stalls_are_named_and_keep_nobody_out() {
    let subject = started(Version::Tls13);
    let runtime = Runtime::new().expect("a runtime");
    let log = subject.log_length();
    let half = half_a_hello();
    let mut stalled: Vec<_> = (0..SILENT).map(|_| connect(&subject)).collect();
    for socket in stalled.iter_mut().step_by(2) {
        socket.write_all(&half).expect("sent");
    }
    for _ in 0..10 {
        assert_served(&subject, &runtime);
    }
    // Every one of them is let go, and the log says why.
    for socket in &mut stalled {
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let named = |reason: &str| {
        subject.refusals_since(log).iter().filter(|refusal| refusal.reason == reason).count()
    };
    eventually("each has its line in the log", SOON, || {
        (named("HANDSHAKE_TIMEOUT") + named("TOO_MANY_CONNECTIONS") == SILENT).then_some(())
    });
    assert!(named("HANDSHAKE_TIMEOUT") > 0);
    assert_served(&subject, &runtime);
}

/// Versions that were broken long ago are refused whatever the settings say.
#[test]
fn old_versions_are_named_and_cannot_be_enabled() {
    if !has_openssl() {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    for minimum in [Version::Tls13, Version::Tls12] {
        let subject = started(minimum);
        for version in ["-tls1", "-tls1_1"] {
            let log = subject.log_length();
            let files = subject.zoo.files(Kind::Good);
            let old = [version, "-cipher", "ALL@SECLEVEL=0"];
            let seen = runtime.block_on(openssl(&subject.target(), &old, files));
            assert!(matches!(seen, Seen::Refused { alert: Some(_), .. }), "{version}: {seen:?}");
            let refusals = subject.refusals(log, 1);
            assert_eq!(refusals[0].reason, oracle::PROTOCOL_VERSION, "{version}");
        }
        assert_served(&subject, &runtime);
    }
    let mut subject = Subject::prepare();
    for old in ["1.1", "1.0", "SSLv3", ""] {
        let refused = subject.refused_start("minimum_version", old);
        assert!(refused.contains("minimum_version"), "{refused}");
        assert!(refused.contains("1.2") && refused.contains("1.3"), "{refused}");
    }
}

/// SECURITY-CASES row 24.
#[test]
fn connections_are_accepted_again_after_the_descriptors_ran_out() {
    let mut subject = started(Version::Tls13);
    let runtime = Runtime::new().expect("a runtime");
    assert_served(&subject, &runtime);
    let id = subject.system.server(1).id();
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process");
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("its descriptors").count();
    let few = Rlimit { current: Some(open as u64 + SPARE), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, few).expect("a limit");

    let log = subject.log_length();
    let crowd: Vec<_> = (0..SILENT).map(|_| connect(&subject)).collect();
    eventually("no connection can be accepted", SOON, || {
        let lines = subject.log_since(log);
        let failed =
            |line: &serde_json::Value| text(line, "message").contains("cannot be accepted");
        lines.iter().any(failed).then_some(())
    });
    drop(crowd);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 5000]] {
        answer(&subject, garbage);
    }
    assert_served(&subject, &runtime);
    prlimit(Some(pid), Resource::Nofile, before).expect("the old limit");
    assert_served(&subject, &runtime);
    // It said so a few times, not in a loop.
    let lines = subject.log_since(log);
    let failed = |line: &&serde_json::Value| text(line, "message").contains("cannot be accepted");
    assert!(lines.iter().filter(failed).count() < 1000);
    let messages: BTreeSet<_> = lines.iter().map(|line| text(line, "level")).collect();
    assert!(!messages.contains("ERROR"), "{lines:?}");
}
