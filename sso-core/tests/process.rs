//! What changes a whole process, tested in a process of its own: one test, in one binary.

#![expect(clippy::expect_used, reason = "a helper of the test may fail the test")]

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities},
};
use sso_core::memory::{KeyError, LockedKey, harden_process, require_locked_memory};

#[test]
fn a_process_without_dumps_and_with_little_lockable_memory() {
    refuse_to_lock_memory();
    let key = LockedKey::generate().expect("a warning, not an error, while locking is optional");
    assert_ne!(key.expose(), &[0; 32]);
    require_locked_memory();
    let error = LockedKey::generate().expect_err("locking is required now");
    assert!(matches!(error, KeyError::NotLocked(_)), "{error}");
    assert!(error.to_string().contains("LimitMEMLOCK"), "{error}");
    drop(key);

    harden_process().expect("a process can always close itself");
    let limits = std::fs::read_to_string("/proc/thread-self/limits").expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("core");
    let values: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(values, ["0", "0"], "{core}");
    let dumpable = rustix::process::dumpable_behavior().expect("readable");
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
    harden_process().expect("twice is harmless");
}

/// Allows no locked memory, and takes away the right of root to lock all the same.
fn refuse_to_lock_memory() {
    setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).expect("limit");
    let CapabilitySets { effective, permitted, inheritable } =
        capabilities(None).expect("capabilities");
    let without = |set: CapabilitySet| set - CapabilitySet::IPC_LOCK;
    let fewer = CapabilitySets {
        effective: without(effective),
        permitted: without(permitted),
        inheritable: without(inheritable),
    };
    set_capabilities(None, fewer).expect("giving up a right is always allowed");
}
