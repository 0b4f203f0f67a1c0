//! A whole system in a folder of its own: the real programs, started, stopped, killed and asked.
//!
//! Laid out by the same code as `sso dev`, so what the tests prove holds for what people run. Everything
//! ends with the value, and with the process when that is killed.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

pub use sso_client::development::Timing;
use sso_client::{
    Client, Environment, Overrides, Profile,
    development::{Installation, Options, Probe, Process, Programs},
};
use tempfile::TempDir;

/// How long a program has to become ready: long, as many tests share few cores.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// Where the data of a system go.
#[derive(Clone, Debug, Default)]
pub enum Database {
    /// A file in the folder of the system.
    #[default]
    Sqlite,
    /// A PostgreSQL database by its address.
    Postgres(String),
}

/// A system of one master, some on standby and some servers.
pub struct System {
    master: Option<Process>,
    standbys: Vec<Option<Process>>,
    servers: Vec<Option<Process>>,
    installation: Installation,
    _folder: TempDir,
}

impl System {
    /// A running system with one server.
    #[must_use]
    pub fn start(database: Database) -> Self {
        Self::start_with(database, 1, Timing::default())
    }

    /// A running system with this many servers and this timing.
    #[must_use]
    pub fn start_with(database: Database, servers: u32, timing: Timing) -> Self {
        let mut system = Self::prepare(database, servers, timing);
        system.start_master();
        for number in 1..=system.servers.len() {
            system.start_server(number);
        }
        system
    }

    /// A running system with masters on standby, which run too.
    #[must_use]
    pub fn start_with_standbys(
        database: Database,
        servers: u32,
        standbys: u32,
        timing: Timing,
    ) -> Self {
        let mut system = Self::prepare_with_standbys(database, servers, standbys, timing);
        system.start_master();
        for number in 1..=system.standbys() {
            system.start_standby(number);
        }
        for number in 1..=system.servers.len() {
            system.start_server(number);
        }
        system
    }

    /// A system with everything made and nothing running.
    #[must_use]
    pub fn prepare(database: Database, servers: u32, timing: Timing) -> Self {
        Self::prepare_with_standbys(database, servers, 0, timing)
    }

    /// The same with masters on standby. Their keystores are made at their first start.
    #[must_use]
    pub fn prepare_with_standbys(
        database: Database,
        servers: u32,
        standbys: u32,
        timing: Timing,
    ) -> Self {
        let options = Options { servers, standbys, timing, ..Options::default() };
        Self::prepare_with(database, options)
    }

    /// The same with these options.
    #[must_use]
    pub fn prepare_with(database: Database, options: Options) -> Self {
        Self::prepare_as(database, options, programs())
    }

    /// The same with other programs than those that cargo built.
    #[must_use]
    pub fn prepare_as(database: Database, options: Options, programs: Programs) -> Self {
        let folder = tempfile::Builder::new().prefix("sso-test-").tempdir().expect("a folder");
        let database = match database {
            Database::Sqlite => None,
            Database::Postgres(url) => Some(url),
        };
        let options = Options { database, ..options };
        let installation = Installation::prepare(&folder.path().join("system"), programs, &options)
            .unwrap_or_else(|error| panic!("{error}\n{}", error.log_tail()));
        let servers = (0..installation.server_count()).map(|_| None).collect();
        let standbys = (0..installation.standby_count()).map(|_| None).collect();
        Self { master: None, standbys, servers, installation, _folder: folder }
    }

    /// The paths, addresses and settings files.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The folder with everything that the system leaves behind.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.installation.folder()
    }

    /// Starts the master and waits until it is ready.
    pub fn start_master(&mut self) {
        let master = self.installation.start_master().expect("sso-master starts");
        ready(self.master.insert(master), Probe::Ready);
    }

    /// How many masters on standby there are.
    #[must_use]
    pub fn standbys(&self) -> usize {
        self.standbys.len()
    }

    /// Starts a master on standby, counted from 1, and waits until it is ready. Its first start needs
    /// the primary.
    pub fn start_standby(&mut self, number: usize) {
        let standby = self
            .installation
            .start_standby(number)
            .unwrap_or_else(|error| panic!("{error}\n{}", error.log_tail()));
        ready(self.standby_slot(number).insert(standby), Probe::Ready);
    }

    /// Stops a master on standby, counted from 1, as the service manager would.
    pub fn stop_standby(&mut self, number: usize) {
        stop(self.standby_slot(number).take());
    }

    /// Ends a master on standby, counted from 1, with SIGKILL.
    pub fn kill_standby(&mut self, number: usize) {
        self.standby_slot(number).take().expect("the standby runs").kill();
    }

    /// A running master on standby, counted from 1.
    #[must_use]
    pub fn standby(&mut self, number: usize) -> &mut Process {
        self.standby_slot(number).as_mut().expect("the standby runs")
    }

    /// The address at which a master on standby, counted from 1, is administered: for `--master`.
    #[must_use]
    pub fn standby_socket(&self, number: usize) -> String {
        format!("unix://{}", self.installation.standby_socket(number).display())
    }

    /// What a master on standby, counted from 1, has logged.
    #[must_use]
    pub fn log_of_standby(&self, number: usize) -> String {
        self.log(&format!("sso-standby-{number}"))
    }

    /// Starts a server, counted from 1, and waits until it is ready.
    pub fn start_server(&mut self, number: usize) {
        self.start_server_until(number, Probe::Ready);
    }

    /// Starts a server, counted from 1, and waits only for the probe: a server without a master lives
    /// but is not ready.
    pub fn start_server_until(&mut self, number: usize, probe: Probe) {
        let server = self.installation.start_server(number).expect("sso-server starts");
        ready(self.slot(number).insert(server), probe);
    }

    /// Stops the master as the service manager would.
    pub fn stop_master(&mut self) {
        stop(self.master.take());
    }

    /// Stops a server, counted from 1, as the service manager would.
    pub fn stop_server(&mut self, number: usize) {
        stop(self.slot(number).take());
    }

    /// Ends the master with SIGKILL.
    pub fn kill_master(&mut self) {
        self.master.take().expect("the master runs").kill();
    }

    /// Ends a server, counted from 1, with SIGKILL.
    pub fn kill_server(&mut self, number: usize) {
        self.slot(number).take().expect("the server runs").kill();
    }

    /// The running master.
    #[must_use]
    pub fn master(&mut self) -> &mut Process {
        self.master.as_mut().expect("the master runs")
    }

    /// A running server, counted from 1.
    #[must_use]
    pub fn server(&mut self, number: usize) -> &mut Process {
        self.slot(number).as_mut().expect("the server runs")
    }

    /// Where a running server, counted from 1, listens for those who operate it.
    #[must_use]
    pub fn operations(&self, number: usize) -> SocketAddr {
        let slot = number.checked_sub(1).and_then(|at| self.servers.get(at)?.as_ref());
        slot.expect("the server runs").operations()
    }

    /// Runs `sso --profile PROFILE ARGUMENTS…` to its end.
    #[must_use]
    pub fn sso<A: AsRef<OsStr>>(&self, profile: &str, arguments: &[A]) -> Output {
        self.sso_with_input(profile, arguments, "")
    }

    /// As [`System::sso`], with something on standard input.
    #[must_use]
    pub fn sso_with_input<A: AsRef<OsStr>>(
        &self,
        profile: &str,
        arguments: &[A],
        input: &str,
    ) -> Output {
        let mut child = self
            .command(profile)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sso starts");
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input may have ended already.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().expect("sso ends")
    }

    /// The standard output of a command that has to succeed.
    #[must_use]
    pub fn sso_ok<A: AsRef<OsStr>>(&self, profile: &str, arguments: &[A]) -> String {
        let output = self.sso(profile, arguments);
        assert!(
            output.status.success(),
            "sso as {profile}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The JSON document that a command, which has to succeed, prints.
    #[must_use]
    pub fn sso_json<A: AsRef<OsStr>>(&self, profile: &str, arguments: &[A]) -> serde_json::Value {
        let json = [OsStr::new("--output"), OsStr::new("json")];
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).chain(json).collect();
        let text = self.sso_ok(profile, &arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Creates an enabled application with these fields (`Label` or `Label:masked`) behind field 0,
    /// for the accounts that `sso dev` makes.
    pub fn create_application(&self, name: &str, fields: &[&str]) {
        let mut arguments = vec!["app", "create", name, "--enable"];
        arguments.extend(["--users", "DEV\\Application Users"]);
        arguments.extend(["--admins", "DEV\\Application Administrators"]);
        arguments.extend(fields.iter().flat_map(|field| ["--field", field]));
        let _ = self.sso_ok("affiliate-admin", &arguments);
    }

    /// `sso` as this profile, to be started by the caller: with nothing of this process's environment
    /// that names another system.
    #[must_use]
    pub fn command(&self, profile: &str) -> Command {
        self.command_of(&self.installation.programs().client, profile)
    }

    /// As [`System::command`], for another program that is a client of this system.
    #[must_use]
    pub fn command_of(&self, program: &Path, profile: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SSO_CONFIG", self.installation.profiles())
            .env("SSO_PROFILE", profile)
            .env("RUST_BACKTRACE", "0");
        for name in ["SSO_ADDR", "SSO_CA", "SSO_CRL", "SSO_CERT", "SSO_KEY", "SSO_TOKEN_FILE"] {
            command.env_remove(name);
        }
        command.env_remove("SSO_MASTER");
        command
    }

    /// The profile of this name: `admin`, `user`, …, or `admin-2` for the same at server 2.
    #[must_use]
    pub fn profile(&self, name: &str) -> Profile {
        let overrides = Overrides { profile: Some(name.to_owned()), ..Overrides::default() };
        let config = Some(self.installation.profiles());
        let environment = Environment { config, ..Environment::default() };
        Profile::resolve(&overrides, &environment).expect("a profile")
    }

    /// The client library as this profile. Must be called within a runtime.
    #[must_use]
    pub fn client(&self, profile: &str) -> Client {
        Client::connect(&self.profile(profile)).expect("a client")
    }

    /// What a server, counted from 1, has logged.
    #[must_use]
    pub fn log_of_server(&self, number: usize) -> String {
        self.log(&format!("sso-server-{number}"))
    }

    /// What the master has logged.
    #[must_use]
    pub fn log_of_master(&self) -> String {
        self.log("sso-master")
    }

    /// Every file below the folder, with its content.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a readable folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(content) = fs::read(&path) {
                    found.push((path, content));
                }
            }
        }
        found
    }

    fn log(&self, name: &str) -> String {
        let path = self.folder().join("logs").join(format!("{name}.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    fn standby_slot(&mut self, number: usize) -> &mut Option<Process> {
        let count = self.standbys.len();
        let index = number.checked_sub(1).expect("standbys are counted from 1");
        self.standbys.get_mut(index).unwrap_or_else(|| panic!("there are {count} standbys"))
    }

    fn slot(&mut self, number: usize) -> &mut Option<Process> {
        let count = self.servers.len();
        let index = number.checked_sub(1).expect("servers are counted from 1");
        self.servers.get_mut(index).unwrap_or_else(|| panic!("there are {count} servers"))
    }
}

/// The programs that cargo built for the same profile as this test.
///
/// # Panics
/// When they are not there: cargo builds the programs of other packages only when told to.
#[must_use]
pub fn programs() -> Programs {
    let own = std::env::current_exe().expect("the path of the test");
    let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    Programs::in_folder(profile).unwrap_or_else(|error| {
        panic!("{error}\nrun: cargo build --workspace --all-features --bins")
    })
}

/// Asks until the answer is `Some`, and gives up with `what` after a while.
///
/// # Panics
/// At the deadline.
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ready(process: &mut Process, probe: Probe) {
    if let Err(error) = process.wait_until(probe, READY_WITHIN) {
        panic!("{error}\n{}", error.log_tail());
    }
}

fn stop(process: Option<Process>) {
    let mut process = process.expect("it runs");
    let status = process.stop(STOP_WITHIN);
    let log = process.log().display().to_string();
    let status = status.unwrap_or_else(|| panic!("{} had to be killed: {log}", process.name()));
    assert!(status.success(), "{} ended with {status}: {log}", process.name());
}
