//! Keys are gone when they are to be gone: the whole memory of a running server is searched for them.
//!
//! `/proc/PID/mem` of a program that let nobody look at it (`PR_SET_DUMPABLE` 0) opens for root alone.
//! Elsewhere the search is left out, with a word about it; `SSO_REQUIRE_MEMORY=1` forbids that.

use std::{fs, io, os::unix::fs::FileExt as _, path::Path, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use futures_util::future::try_join_all;
use rustix::process::{Pid, Signal, kill_process};
use sso_core::secret::SecretText;
use sso_master::backup::{Backup, Opener};
use sso_tests::{
    raw,
    system::{Database, System, Timing, eventually},
};
use tokio::runtime::Runtime;

/// Bytes that are read at once; what lies over a border is read twice.
const PIECE: usize = 1 << 20;
/// Longer than every form of a key.
const OVERLAP: usize = 128;
const SOON: Duration = Duration::from_secs(30);

/// What is searched for, with a name.
type Needle = (&'static str, Vec<u8>);

/// A key, and what it becomes on its way into a cipher: the inner and the outer block of HMAC.
fn needles(key: &[u8]) -> Vec<Needle> {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let with = |pad: u8| key.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let mut needles = vec![
        ("raw", key.to_vec()),
        ("inner block of HMAC", with(0x36)),
        ("outer block of HMAC", with(0x5c)),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("hex", hex.into_bytes()),
    ];
    for offset in 0..3 {
        let bytes = [&[0; 3][..offset], key].concat();
        let digits = (offset * 8).div_ceil(6)..bytes.len() * 8 / 6;
        needles.extend([&STANDARD_NO_PAD, &URL_SAFE_NO_PAD].map(|alphabet| {
            ("base64", alphabet.encode(&bytes).as_bytes()[digits.clone()].to_vec())
        }));
    }
    needles
}

/// The key of the first generation, from the backup that was made with it.
fn key(folder: &Path) -> Vec<u8> {
    let backup = Backup::read(&folder.join("master-secret.backup")).expect("a backup");
    let passphrase = fs::read_to_string(folder.join("backup.passphrase")).expect("a passphrase");
    let opener = Opener::Password(SecretText::new(passphrase.trim().to_owned()));
    let ring = backup.open(&opener).expect("the backup opens");
    // Expose: to be searched for.
    ring.key(ring.active()).expect("the active key").expose().to_vec()
}

/// Every form of the needles in the readable memory of a process, with the place; `None` when nobody
/// may look.
fn search(pid: u32, needles: &[Needle]) -> Option<Vec<String>> {
    let memory = match fs::File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(error) => panic!("/proc/{pid}/mem: {error}"),
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the regions");
    let (mut found, mut searched) = (Vec::new(), 0);
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (range, rights) = (parts.next().expect("a range"), parts.next().expect("rights"));
        let name = parts.nth(3).unwrap_or("(anonymous)");
        // What the kernel shares with everybody is no memory of the process.
        if !rights.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("two ends");
        let [start, end] = [start, end].map(|it| u64::from_str_radix(it, 16).expect("an address"));
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).expect("a length").min(PIECE + OVERLAP);
            let mut piece = vec![0; length];
            // A region may have gone since.
            let Ok(read) = memory.read_at(&mut piece, at) else { break };
            let piece = &piece[..read];
            searched += read;
            for (form, needle) in needles {
                if finds(piece, needle) {
                    found.push(format!("{form} in {name} {range} {rights}"));
                }
            }
            at += u64::try_from(read.min(PIECE)).expect("a length").max(1);
        }
    }
    assert!(searched > PIECE, "{searched} bytes are not the memory of a program");
    println!("{searched} bytes searched: {found:?}");
    Some(found)
}

fn finds(piece: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else { return false };
    let mut from = 0;
    while let Some(next) = piece[from..].iter().position(|&byte| byte == first) {
        let after = from + next + 1;
        if piece[after..].starts_with(rest) {
            return true;
        }
        from = after;
    }
    false
}

fn set(system: &System, value: &str) -> bool {
    let arguments = ["config", "set", "Kept", "One", "--values", "-"];
    let values = format!(r#"{{"Key":"{value}"}}"#);
    system.sso_with_input("app-admin", &arguments, &values).status.success()
}

fn state(system: &System) -> String {
    let status = system.sso_json("admin", &["status"]);
    status["master_secret"]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn the_search_finds_every_form_of_a_key() {
    let key: Vec<u8> = (100..132).collect();
    for (form, needle) in needles(&key) {
        let around = [&b"before"[..], &needle, b"behind"].concat();
        assert!(finds(&around, &needle), "{form}");
        assert!(!finds(&around[..around.len() - 7], &needle), "{form}");
    }
    let own = std::process::id();
    let needle = [("own", b"a text that stands in this process alone, once".to_vec())];
    if let Some(found) = search(own, &needle) {
        assert!(!found.is_empty());
    }
}

#[test]
fn no_key_is_left_in_the_memory_of_a_server_whose_lease_ended() {
    let timing = Timing {
        heartbeat_interval_ms: 200,
        poll_seconds: 1,
        read_lease_seconds: 2,
        write_lease_seconds: 1,
    };
    let mut system = System::start_with(Database::Sqlite, 1, timing);
    system.create_application("Kept", &["Key:masked"]);
    let needles = needles(&key(system.folder()));
    for number in 0..10 {
        assert!(set(&system, &number.to_string()));
        let _ = system.sso_ok("user", &["config", "get", "Kept", "One", "--reveal"]);
    }
    let pid = system.server(1).id();
    let Some(found) = search(pid, &needles) else {
        sso_tests::left_out("MEMORY", "only root may read the memory of a server");
        return;
    };
    // The search works: while there is a lease, there is a key, in the page that was made for it.
    assert!(found.iter().any(|it| it.starts_with("raw")), "{found:?}");
    assert_eq!(found.len(), 1, "copies of the key: {found:#?}");

    system.stop_master();
    eventually("the read lease ends", SOON, || {
        let state = state(&system);
        ["expired", "missing"].contains(&state.as_str()).then_some(())
    });
    let found = search(pid, &needles).expect("as before");
    assert_eq!(found, Vec::<String>::new());

    // And it comes back: the server runs on.
    system.start_master();
    eventually("the keys are back", SOON, || set(&system, "after").then_some(()));
    let found = search(pid, &needles).expect("as before");
    assert_eq!(found.len(), 1, "copies of the key: {found:#?}");
}

#[test]
fn the_memory_of_a_master_has_each_key_in_its_own_page_only() {
    let mut system = System::start_with(Database::Sqlite, 1, Timing::default());
    let needles = needles(&key(system.folder()));
    let Some(found) = search(system.master().id(), &needles) else {
        sso_tests::left_out("MEMORY", "only root may read the memory of a master");
        return;
    };
    assert!(!found.is_empty(), "the search works");
    let elsewhere: Vec<_> =
        found.iter().filter(|it| !it.starts_with("raw") || !it.ends_with("r--p")).collect();
    assert!(elsewhere.is_empty(), "copies of the key: {elsewhere:#?}");
}

#[test]
fn a_program_that_dies_of_a_fault_leaves_no_core() {
    for signal in [Signal::ABORT, Signal::SEGV] {
        let mut system = System::start_with(Database::Sqlite, 1, Timing::default());
        for pid in [system.server(1).id(), system.master().id()] {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
            let core = limits.lines().find(|line| line.starts_with("Max core file size"));
            let core: Vec<_> = core.expect("the limit").split_whitespace().collect();
            assert_eq!(core[4..6], ["0", "0"], "{core:?}");
            let process = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
            let ended = eventually("the end of the program", SOON, || {
                // The first SEGV is taken for one of the stack and sent on to the default action.
                let _ = kill_process(process, signal);
                let running = match pid == system.server(1).id() {
                    true => system.server(1).running(),
                    false => system.master().running(),
                };
                running.err().map(|error| error.to_string())
            });
            assert!(ended.contains("signal"), "{ended}");
            assert!(!ended.contains("core dumped"), "{ended}");
        }
        let cores: Vec<_> = system
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))
            })
            .collect();
        assert!(cores.is_empty(), "{cores:?}");
    }
}

/// Whether a process takes huge pages where the system has them.
fn takes_huge_pages(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    line.expect("Linux 5.0 or newer").trim() == "1"
}

#[test]
fn a_server_takes_huge_pages_once_it_has_work() {
    if !takes_huge_pages(std::process::id()) {
        sso_tests::left_out("HUGE_PAGES", "whoever started this test takes no huge pages");
        return;
    }
    let mut system = System::start_with(Database::Sqlite, 1, Timing::default());
    let pid = system.server(1).id();
    let runtime = Runtime::new().expect("a runtime");
    let channel = {
        let _guard = runtime.enter();
        raw::channel(&system, 1, "user")
    };
    let ask = || raw::call(&channel, "/sso.v1.System/GetServerStatus", Vec::new());
    eventually("it takes them", SOON, || {
        runtime.block_on(async {
            for _ in 0..50 {
                try_join_all((0..8).map(|_| ask())).await.expect("answers");
            }
        });
        takes_huge_pages(pid).then_some(())
    });
}
