//! A system that can be broken: proxies on every way, small disks, clocks of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sso_client::development::{Options, Programs};
use sso_tests::{
    disk::Disk,
    postgres,
    proxy::Proxy,
    system::{Database, System, Timing, programs},
};
use tempfile::TempDir;

pub(crate) const SERVERS: usize = 2;
/// Mebibytes for the data of PostgreSQL.
const DATABASE_DISK: u32 = 160;
const TIMING: Timing = Timing {
    heartbeat_interval_ms: 300,
    poll_seconds: 2,
    read_lease_seconds: 60,
    write_lease_seconds: 4,
};
/// Of Debian's package faketime; other systems have it elsewhere.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A system with everything that can be broken in it. The parts end in this order: what stands on
/// another one first.
pub(crate) struct Place {
    /// The keystore of the first master, and SQLite with its audit. They are in the folder of the
    /// system; PostgreSQL has a disk of its own.
    disks: Vec<(&'static str, Disk)>,
    pub(crate) system: System,
    /// Between each server and each master, the other masters included.
    pub(crate) ways: Vec<Proxy>,
    /// Of each server, its ways to the masters.
    pub(crate) of_server: Vec<Vec<usize>>,
    /// Between the masters.
    pub(crate) of_masters: Vec<usize>,
    pub(crate) before_database: Option<Proxy>,
    pub(crate) database: Option<postgres::Server>,
    /// What the clocks of these programs are told.
    pub(crate) clocks: Vec<(&'static str, PathBuf)>,
    _clocked: TempDir,
}

impl Place {
    /// Everything is laid out, and runs. `None` where there is no PostgreSQL.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let (mut before_database, mut server) = (None, None);
        let url = match kind {
            Kind::Sqlite => Database::Sqlite,
            Kind::Postgres => {
                let options = postgres::Options { tcp: true, fsync: true };
                let started = postgres::Server::start_on(Some(DATABASE_DISK), options)?;
                let (proxy, url) = Proxy::before_database(&started.database());
                (before_database, server) = (Some(proxy), Some(started));
                Database::Postgres(url)
            }
        };
        let clocked = tempfile::tempdir().expect("a folder");
        let (programs, clocks) = with_clocks(clocked.path());
        let options = Options {
            servers: u32::try_from(SERVERS).expect("few"),
            standbys: 1,
            timing: TIMING,
            ..Options::default()
        };
        let system = System::prepare_as(url, options, programs);
        let mut place = Self {
            system,
            ways: Vec::new(),
            of_server: vec![Vec::new(); SERVERS],
            of_masters: Vec::new(),
            before_database,
            database: server,
            disks: Vec::new(),
            clocks,
            _clocked: clocked,
        };
        place.put_proxies();
        place.put_disks(kind);
        let system = &mut place.system;
        system.start_master();
        system.start_standby(1);
        for number in 1..=SERVERS {
            system.start_server(number);
        }
        Some(place)
    }

    fn put_proxies(&mut self) {
        let installation = self.system.installation();
        let standby = installation.standby_address(1).expect("a standby");
        let masters = [installation.master_address(), standby];
        let mut files: Vec<(PathBuf, Option<usize>)> = (1..=SERVERS)
            .map(|number| (installation.server_settings(number), Some(number)))
            .collect();
        files.push((installation.master_settings(), None));
        files.push((installation.standby_settings(1), None));
        for (file, server) in files {
            for master in &masters {
                let text = fs::read_to_string(&file).expect("settings");
                if !text.contains(&**master) {
                    continue;
                }
                let port = master.rsplit_once(':').expect("a port").1.parse().expect("a port");
                let proxy = Proxy::before(([127, 0, 0, 1], port).into());
                let through = format!("https://{}", proxy.address());
                fs::write(&file, text.replace(&**master, &through)).expect("settings");
                match server {
                    Some(number) => self.of_server[number - 1].push(self.ways.len()),
                    None => self.of_masters.push(self.ways.len()),
                }
                self.ways.push(proxy);
            }
        }
    }

    /// The keystore and SQLite go to small disks, where such can be mounted.
    fn put_disks(&mut self, kind: Kind) {
        let folder = self.system.folder().to_owned();
        let edit = |file: &Path, from: &str, to: &str| {
            let text = fs::read_to_string(file).expect("settings");
            assert!(text.contains(from), "{from} is not in {}", file.display());
            fs::write(file, text.replace(from, to)).expect("settings");
        };
        if let Some(disk) = Disk::mount(&folder.join("keys"), 1) {
            let [from, to] = [folder.join("keystore.json"), folder.join("keys/keystore.json")];
            fs::copy(&from, &to).expect("copied");
            fs::remove_file(from).expect("removed");
            let settings = self.system.installation().master_settings();
            edit(&settings, "\"keystore.json\"", "\"keys/keystore.json\"");
            self.disks.push(("the keystore", disk));
        }
        if kind == Kind::Sqlite
            && let Some(disk) = Disk::mount(&folder.join("data"), 64)
        {
            for number in 1..=SERVERS {
                let settings = self.system.installation().server_settings(number);
                edit(&settings, "sqlite:sso.db", "sqlite:data/sso.db");
            }
            self.disks.push(("the database and its audit", disk));
        }
    }

    /// Everything that can be filled.
    pub(crate) fn disks(&self) -> Vec<(&'static str, &Disk)> {
        let database = self.database.as_ref().and_then(postgres::Server::disk);
        let own = self.disks.iter().map(|(name, disk)| (*name, disk));
        own.chain(database.map(|disk| ("the database", disk))).collect()
    }

    /// The disk with this in its name.
    pub(crate) fn disk(&self, name: &str) -> Option<&Disk> {
        self.disks().into_iter().find(|(it, _)| it.contains(name)).map(|(_, disk)| disk)
    }

    /// The keystores of the masters.
    pub(crate) fn keystores(&self) -> [PathBuf; 2] {
        let folder = self.system.folder();
        let first = match self.disk("keystore") {
            Some(disk) => disk.folder().join("keystore.json"),
            None => folder.join("keystore.json"),
        };
        [first, folder.join("sso-standby-1.json")]
    }

    /// Everything passes, is free and shows the right time.
    pub(crate) fn mend(&mut self) {
        for proxy in self.ways.iter().chain(&self.before_database) {
            proxy.heal();
        }
        for (_, disk) in self.disks() {
            disk.free();
        }
        for (_, clock) in &self.clocks {
            set_clock(clock, 0);
        }
    }
}

/// Has a clock go wrong by so many seconds.
pub(crate) fn set_clock(clock: &Path, seconds: i64) {
    // Readers must never see half of it.
    let new = clock.with_extension("new");
    fs::write(&new, format!("{seconds:+}\n")).expect("written");
    fs::rename(new, clock).expect("renamed");
}

/// The programs, each behind a script that gives it a clock which can be set; as they are where the
/// package faketime is not installed.
fn with_clocks(folder: &Path) -> (Programs, Vec<(&'static str, PathBuf)>) {
    let real = programs();
    let Some(library) = FAKETIME.into_iter().find(|path| Path::new(path).is_file()) else {
        sso_tests::left_out("FAULTS", "clocks do not jump: the package faketime is not installed");
        return (real, Vec::new());
    };
    let mut clocks = Vec::new();
    for (name, program) in [("sso-master", &real.master), ("sso-server", &real.server)] {
        let clock = folder.join(format!("{name}.clock"));
        set_clock(&clock, 0);
        // Leases and timers run on clocks that nobody sets; they stay as they are.
        let script = format!(
            "#!/bin/sh\n\
             export LD_PRELOAD={library} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1\n\
             export FAKETIME_TIMESTAMP_FILE={}\n\
             exec {} \"$@\"\n",
            clock.display(),
            program.display()
        );
        let path = folder.join(name);
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        clocks.push((name, clock));
    }
    std::os::unix::fs::symlink(&real.client, folder.join("sso")).expect("linked");
    (Programs::in_folder(folder).expect("the scripts"), clocks)
}

/// As long as it takes to notice that somebody is away.
pub(crate) const LEASES: Duration = Duration::from_secs(4);
