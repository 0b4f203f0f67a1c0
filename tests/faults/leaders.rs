//! Who leads: what the keystores of both masters say of it, all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

/// Between two looks; a change of the master secret takes longer.
const LOOK: Duration = Duration::from_millis(5);

/// Somebody who looks at the keystores until the end.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What was seen. In one epoch one primary makes changes one after the other; so whoever has a change
/// has the same generations as everybody else who has it.
#[derive(Default)]
pub(crate) struct Seen {
    /// By epoch.
    primaries: BTreeMap<u64, BTreeSet<String>>,
    /// The generations by epoch and change.
    changes: BTreeMap<(u64, u64), BTreeSet<String>>,
    /// Keystores that could not be read.
    broken: Vec<String>,
}

impl Watch {
    /// Looks from now on.
    pub(crate) fn start(keystores: [PathBuf; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            let mut last = [Vec::new(), Vec::new()];
            while !until.load(Ordering::Relaxed) {
                for (path, last) in keystores.iter().zip(&mut last) {
                    match fs::read(path) {
                        Ok(content) if content == *last => {}
                        Ok(content) => {
                            if seen.add(&content).is_none() {
                                seen.broken.push(format!("{} is not whole", path.display()));
                            }
                            *last = content;
                        }
                        Err(error) => seen.broken.push(format!("{}: {error}", path.display())),
                    }
                }
                thread::sleep(LOOK);
            }
            seen
        });
        Self { stop, thread }
    }

    /// What was seen until now.
    pub(crate) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("somebody who looked")
    }
}

impl Seen {
    /// Of how many epochs.
    pub(crate) fn epochs(&self) -> usize {
        self.primaries.len()
    }

    /// How many changes.
    pub(crate) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Everything that must not be, in words; empty when all is well.
    pub(crate) fn faulty(&self) -> Vec<String> {
        let mut found = self.broken.clone();
        for (epoch, primaries) in self.primaries.iter().filter(|(_, all)| all.len() > 1) {
            found.push(format!("epoch {epoch} has the primaries {primaries:?}"));
        }
        for ((epoch, change), all) in self.changes.iter().filter(|(_, all)| all.len() > 1) {
            found.push(format!("change {change} of epoch {epoch} was made twice: {all:?}"));
        }
        found
    }

    fn add(&mut self, keystore: &[u8]) -> Option<()> {
        let keystore: Value = serde_json::from_slice(keystore).ok()?;
        let header = keystore.get("header")?;
        let epoch = header.get("epoch")?.as_u64()?;
        let change = header.get("change")?.as_u64()?;
        let primary = header.get("primary")?.as_str()?;
        let parts = ["generation", "state", "fingerprint"];
        let generations = header.get("generations")?.as_array()?.iter();
        let generations: Vec<_> =
            generations.map(|it| parts.map(|part| it[part].to_string()).join(" ")).collect();
        self.primaries.entry(epoch).or_default().insert(primary.to_owned());
        self.changes.entry((epoch, change)).or_default().insert(generations.join(", "));
        Some(())
    }
}

#[test]
fn two_primaries_of_one_epoch_are_named() {
    let keystore = |primary: &str, change: u64, state: &str| {
        let generation = serde_json::json!({
            "generation": 1, "state": state, "fingerprint": "f", "wrapped": primary
        });
        let header = serde_json::json!({
            "epoch": 2, "primary": primary, "change": change, "generations": [generation]
        });
        serde_json::to_vec(&serde_json::json!({ "header": header })).expect("a document")
    };
    let mut seen = Seen::default();
    seen.add(&keystore("a", 1, "active")).expect("a keystore");
    seen.add(&keystore("a", 2, "draining")).expect("a keystore");
    assert_eq!(seen.faulty(), [""; 0]);
    seen.add(&keystore("a", 2, "active")).expect("a keystore");
    assert!(seen.faulty()[0].contains("made twice"), "{:?}", seen.faulty());
    seen.add(&keystore("b", 3, "active")).expect("a keystore");
    assert!(seen.faulty()[0].contains("epoch 2 has the primaries"), "{:?}", seen.faulty());
    assert!(seen.add(b"{\"header\":").is_none());
}
