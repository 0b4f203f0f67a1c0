//! Databases for tests: a throw-away PostgreSQL server from the installed binaries, and SQLite files.
//!
//! A server needs no configuration of the machine and leaves nothing behind: a small shell watches a
//! pipe that this process holds open, and ends the server and removes its folder when the pipe
//! closes, be it because the value was dropped or because the process was killed.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use sso_client::development::ReservedPort;
use tempfile::TempDir;

use crate::disk::Disk;

const PORT: u16 = 5432;
const USER: &str = "sso";
/// Waits for the server at most this many times 20 ms.
const LOOKS: u32 = 1500;
/// `$1` the server, `$2` its folder, the rest its arguments. The shell stays until its standard input
/// ends.
const WATCHDOG: &str = r#"
server=$1 folder=$2
shift 2
touch "$folder/wanted"
(
    while [ -e "$folder/wanted" ]; do
        "$server" "$@" >>"$folder/log" 2>&1 </dev/null &
        echo $! >"$folder/pid"
        wait $!
        sleep 0.1
    done
) &
keeper=$!
cat >/dev/null
rm -f "$folder/wanted"
kill -QUIT "$(cat "$folder/pid")" 2>/dev/null
wait "$keeper"
rm -rf "$folder" 2>/dev/null
"#;

/// How a server is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Listen on a free port of 127.0.0.1, too.
    pub tcp: bool,
    /// Make commits durable, as a real server does; without it tests are faster.
    pub fsync: bool,
}

/// A running PostgreSQL server with a folder of its own. Ends with the value.
#[derive(Debug)]
pub struct Server {
    bin: PathBuf,
    folder: PathBuf,
    port: Option<ReservedPort>,
    disk: Option<Disk>,
    watchdog: Child,
}

/// A database of one test.
#[derive(Debug)]
pub struct TestDatabase {
    /// "sqlite" or "postgresql".
    pub name: &'static str,
    /// As settings take it.
    pub url: String,
    _folder: Option<TempDir>,
}

/// The address of a new, empty database of the server that the tests of this process share.
///
/// `None`, with a notice, where no PostgreSQL is installed. Panics then where `SSO_REQUIRE_POSTGRES`
/// is set to 1.
#[must_use]
pub fn database() -> Option<String> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(Options::default())).as_ref().map(Server::database)
}

/// A new, empty database of every kind that can be had here.
#[must_use]
pub fn databases() -> Vec<TestDatabase> {
    let folder = tempfile::Builder::new().prefix("sso-db-").tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("sso.db").display());
    let mut databases = vec![TestDatabase { name: "sqlite", url, _folder: Some(folder) }];
    if let Some(url) = database() {
        databases.push(TestDatabase { name: "postgresql", url, _folder: None });
    }
    databases
}

impl Server {
    /// Makes and starts a server; `None` where no PostgreSQL is installed, as [`database`].
    ///
    /// Started as root, it runs as the user `postgres` or `nobody`: PostgreSQL refuses to be root.
    #[must_use]
    pub fn start(options: Options) -> Option<Self> {
        Self::start_on(None, options)
    }

    /// The same with the data on a disk of so many mebibytes, where such can be mounted. Little room
    /// for the write-ahead log is kept in advance there, so that a full disk is noticed soon.
    #[must_use]
    pub fn start_on(mebibytes: Option<u32>, options: Options) -> Option<Self> {
        let Some(bin) = binaries() else {
            absent();
            return None;
        };
        let owner = owner();
        let folder = tempfile::Builder::new().prefix("sso-pg-").tempdir().expect("a folder");
        if let Some((user, group)) = owner {
            chown(folder.path(), Some(user), Some(group)).expect("the folder given away");
        }
        // From here on the watchdog removes it.
        let folder = folder.keep();
        let small = folder.join("disk");
        let disk = mebibytes
            .and_then(|mebibytes| Disk::mount_for(&small, mebibytes, owner.unwrap_or_default()));
        // What fills the disk lies beside the data.
        let data = disk.as_ref().map_or(&*folder, Disk::folder).join("data");
        let segments = if mebibytes.is_some() { "1" } else { "16" };
        let made = as_owner(Command::new(bin.join("initdb")), owner)
            .args(["--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"])
            .args(["--wal-segsize", segments, "--username", USER])
            .arg("--pgdata")
            .arg(&data)
            .current_dir(&folder)
            .output()
            .expect("initdb to run");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let port = options.tcp.then(|| ReservedPort::choose().expect("a port"));
        let sync = if options.fsync { "on" } else { "off" };
        let mut command = as_owner(Command::new("/bin/sh"), owner);
        command.args(["-c", WATCHDOG, "watchdog"]).arg(bin.join("postgres")).arg(&folder);
        command.arg("-D").arg(&data).arg("-k").arg(&folder);
        command.args(["-p", &port.as_ref().map_or(PORT, ReservedPort::number).to_string()]);
        for setting in [
            format!("listen_addresses={}", if options.tcp { "127.0.0.1" } else { "" }),
            format!("fsync={sync}"),
            format!("synchronous_commit={sync}"),
            format!("full_page_writes={sync}"),
            "max_connections=300".to_owned(),
            "shared_buffers=32MB".to_owned(),
            // Of a small disk the log may have a part only.
            format!("max_wal_size={}MB", if mebibytes.is_some() { 16 } else { 1024 }),
        ] {
            command.args(["-c", &setting]);
        }
        let watchdog = command
            .current_dir(&folder)
            .stdin(Stdio::piped())
            // Signals of the terminal are for the tests; the watchdog ends after them.
            .process_group(0)
            .spawn()
            .expect("the watchdog to start");
        let server = Self { bin, folder, port, disk, watchdog };
        server.wait_until_ready();
        Some(server)
    }

    /// The address of a new, empty database.
    #[must_use]
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.run("createdb", &[&name]);
        match &self.port {
            Some(port) => {
                format!("postgres://{USER}@127.0.0.1:{}/{name}", port.number())
            }
            None => format!("postgres:///{name}?host={}&user={USER}", self.folder.display()),
        }
    }

    /// Takes TLS with this certificate from now on, on its port.
    ///
    /// # Panics
    /// When it does not.
    pub fn use_tls(&self, certificate: &Path, key: &Path) {
        for (from, name, setting) in
            [(certificate, "server.crt", "ssl_cert_file"), (key, "server.key", "ssl_key_file")]
        {
            let to = self.folder.join(name);
            fs::copy(from, &to).expect("a copy");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("permissions");
            if let Some((user, group)) = owner() {
                chown(&to, Some(user), Some(group)).expect("the file given away");
            }
            let text = format!("ALTER SYSTEM SET {setting} = '{}'", to.display());
            self.run("psql", &["-X", "-q", "-d", "postgres", "-c", &text]);
        }
        for text in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            self.run("psql", &["-X", "-q", "-d", "postgres", "-c", text]);
        }
        let asks =
            || self.over_tls("psql").args(["-X", "-d", "postgres", "-c", "SELECT 1"]).output();
        for _ in 0..LOOKS {
            if asks().expect("psql to run").status.success() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("PostgreSQL does not take TLS:\n{}", self.log());
    }

    /// One of its client programs, for its port and over TLS.
    ///
    /// # Panics
    /// When the server has no port.
    #[must_use]
    pub fn over_tls(&self, program: &str) -> Command {
        let port = self.port.as_ref().expect("a server with a port");
        let mut command = Command::new(self.bin.join(program));
        command.args(["-h", "127.0.0.1", "-p", &port.number().to_string(), "-U", USER]);
        command.env("PGSSLMODE", "require");
        command
    }

    /// Its process, whose children serve the connections; `None` while it does not run.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()
    }

    /// Kills the server with SIGKILL, as a crash does, and waits until its keeper has it running again.
    ///
    /// # Panics
    /// When it does not run, or does not come back.
    pub fn crash(&self) {
        let text = fs::read_to_string(self.folder.join("pid")).expect("the process id");
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::KILL).expect("a running server");
        let changed = || fs::read_to_string(self.folder.join("pid")).is_ok_and(|now| now != text);
        for _ in 0..LOOKS {
            if changed() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert!(changed(), "PostgreSQL was not started again");
        self.wait_until_ready();
    }

    /// Ends the server as a crash does: at once, and without a word to anybody.
    pub fn kill(mut self) {
        self.end();
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.client(program, arguments).output().expect("a client program");
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .arg("-h")
            .arg(&self.folder)
            .args(["-p", &self.port.as_ref().map_or(PORT, ReservedPort::number).to_string()]);
        command.args(["-U", USER]).args(arguments);
        command
    }

    /// Writes to the write-ahead log until the server dies of having no room for it.
    ///
    /// # Panics
    /// When there is room.
    pub fn exhaust_log(&self) {
        const MESSAGE: &str = "SELECT pg_logical_emit_message(false, 'full', repeat('x', 1000000))";
        let write = || self.client("psql", &["-X", "-d", "postgres", "-c", MESSAGE]).output();
        let died = (0..LOOKS).any(|_| !write().expect("psql to run").status.success());
        assert!(died, "there is room for the log");
    }

    /// The disk with the data, where it is a small one.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until the server answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_until_ready(&self) {
        for _ in 0..LOOKS {
            let asked = self.client("pg_isready", &["-q", "-d", "postgres"]).status();
            if asked.expect("pg_isready to run").success() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("PostgreSQL does not start:\n{}", self.log());
    }

    fn end(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
        // The watchdog empties the disk, and cannot unmount it.
        if self.disk.take().is_some() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn as_owner(mut command: Command, owner: Option<(u32, u32)>) -> Command {
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// Who the server is to run as, where it cannot be this user.
fn owner() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("the list of users");
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut parts = line.split(':').skip(2);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("a user that is not root"))
}

/// The folder of the newest server programs installed.
fn binaries() -> Option<PathBuf> {
    const PROGRAMS: [&str; 5] = ["initdb", "postgres", "createdb", "pg_isready", "psql"];
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    folders.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    let path = environment("PATH").unwrap_or_default();
    let on_path = path.split(':').map(PathBuf::from);
    let complete =
        |folder: &PathBuf| PROGRAMS.iter().all(|name| Path::new(folder).join(name).is_file());
    folders.into_iter().map(|(_, folder)| folder).chain(on_path).find(complete)
}

fn absent() {
    assert!(
        environment("SSO_REQUIRE_POSTGRES").as_deref() != Some("1"),
        "PostgreSQL is required (SSO_REQUIRE_POSTGRES=1), but it is not installed"
    );
    #[expect(clippy::print_stderr, reason = "whoever runs the tests must know what was left out")]
    {
        eprintln!("PostgreSQL is not installed: what needs it is left out");
    }
}

#[expect(clippy::disallowed_methods, reason = "the settings of the tests are in the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
