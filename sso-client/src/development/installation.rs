//! The folder of a throw-away system, and the start of its programs.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use sso_core::{clock::Clock, local::user_name, settings::write_private};
use zeroize::Zeroizing;

use super::{
    DevelopmentError, Process, Programs, material,
    ports::ReservedPort,
    process,
    settings::{self, Database, Master, Ports},
    tokens,
};
use crate::certificates::Role;

const MASTER: &str = "sso-master";
const BACKUP: &str = "master-secret.backup";
const BACKUP_PASSPHRASE: &str = "backup.passphrase";
const PROFILES: &str = "profiles.toml";
const DATABASE_PASSWORD: &str = "database.password";
const TOKENS: &str = "tokens";
/// Relative to the settings file of the server, so to the folder.
const SQLITE: &str = "sqlite:sso.db";

/// Permission bits: group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The operating system has room for paths of sockets that are shorter.
const SOCKET_PATH_LONGEST: usize = 108;

/// How long the programs wait for one another. The defaults are those of the programs.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Milliseconds between heartbeats of the master.
    pub heartbeat_interval_ms: u32,
    /// Seconds between polls of the master, the fallback of the heartbeats.
    pub poll_seconds: u32,
    /// Seconds for which reads are served without the master.
    pub read_lease_seconds: u32,
    /// Seconds for which writes are served without the master.
    pub write_lease_seconds: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_interval_ms: 2000,
            poll_seconds: 30,
            read_lease_seconds: 43_200,
            write_lease_seconds: 15,
        }
    }
}

/// What kind of system is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the data go. `None`: where they went the last time, else to SQLite in the folder. A
    /// password in the address goes into a private file.
    pub database: Option<String>,
    /// How many SSO servers share the database; at least 1.
    pub servers: u32,
    /// How many masters on standby follow the first one.
    pub standbys: u32,
    /// How long the programs wait for one another.
    pub timing: Timing,
    /// Whether servers take user tokens of an issuer whose key is in the folder.
    pub tokens: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { database: None, servers: 1, standbys: 0, timing: Timing::default(), tokens: false }
    }
}

/// A program and where it listens.
struct Server {
    name: String,
    ports: Ports,
    _reserved: [ReservedPort; 2],
}

impl Server {
    fn new(name: String) -> Result<Self, DevelopmentError> {
        let (service, operations) = (reserved_port()?, reserved_port()?);
        let ports = Ports { service: service.number(), operations: operations.number() };
        Ok(Self { name, ports, _reserved: [service, operations] })
    }

    fn is_primary(&self) -> bool {
        self.name == MASTER
    }

    fn as_master(&self) -> Master<'_> {
        Master { name: &self.name, ports: self.ports, primary: self.is_primary() }
    }
}

/// A prepared folder. Nobody else prepares it as long as this value lives.
pub struct Installation {
    folder: PathBuf,
    programs: Programs,
    /// The one that makes the master secret, then those on standby.
    masters: Vec<Server>,
    servers: Vec<Server>,
    database: String,
    first_time: bool,
    lock: File,
}

impl Installation {
    /// Makes what the folder lacks (certificates, passphrases, groups, the keystore with its backup),
    /// chooses ports and writes settings and profiles.
    ///
    /// # Errors
    /// [`DevelopmentError::Busy`] when another process has the folder;
    /// [`DevelopmentError::Folder`] when it is none, or not the caller's alone to write; otherwise what went wrong with
    /// a file, a certificate or `sso-master init`.
    pub fn prepare(
        folder: &Path,
        programs: Programs,
        options: &Options,
    ) -> Result<Self, DevelopmentError> {
        let folder = make_folder(folder)?;
        let lock = lock(&folder)?;
        make_folder(&folder.join("logs"))?;
        let servers = (1..=options.servers.max(1))
            .map(|number| Server::new(format!("sso-server-{number}")))
            .collect::<Result<Vec<_>, _>>()?;
        let masters = (0..=options.standbys)
            .map(|number| Server::new(master_name(number)))
            .collect::<Result<Vec<_>, _>>()?;
        for master in &masters {
            check_socket(&folder, &master.name)?;
        }
        let database = match &options.database {
            Some(url) => keep_password(&folder, url)?,
            None => earlier_database(&folder).unwrap_or_else(|| SQLITE.to_owned()),
        };
        let [_, keystore, _] = settings::master_files(MASTER, true);
        let first_time = !folder.join(keystore).exists();
        let installation = Self { folder, programs, masters, servers, database, first_time, lock };
        installation.write_material()?;
        if options.tokens {
            tokens::prepare(&make_folder(&installation.folder.join(TOKENS))?)?;
        }
        installation.write_settings(options)?;
        if first_time {
            installation.initialise_master()?;
        }
        Ok(installation)
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The programs it starts.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Whether the master secret was generated just now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.first_time
    }

    /// The address of the database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The profiles file: what `SSO_CONFIG` names.
    #[must_use]
    pub fn profiles(&self) -> PathBuf {
        self.folder.join(PROFILES)
    }

    /// The settings of `sso-master`.
    #[must_use]
    pub fn master_settings(&self) -> PathBuf {
        self.settings_file(MASTER)
    }

    /// The settings of a server, counted from 1.
    #[must_use]
    pub fn server_settings(&self, number: usize) -> PathBuf {
        self.settings_file(&format!("sso-server-{number}"))
    }

    /// A file of the certificates folder: `ca.crt`, `sso-server-1.key`, `admin.crt`, …
    #[must_use]
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.folder.join("tls").join(name)
    }

    /// The address of the master secret server: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn master_address(&self) -> String {
        self.masters.first().map(|master| address(master.ports)).unwrap_or_default()
    }

    /// The socket at which the master secret server is administered.
    #[must_use]
    pub fn master_socket(&self) -> PathBuf {
        self.socket_file(MASTER)
    }

    /// The settings of a master on standby, counted from 1.
    #[must_use]
    pub fn standby_settings(&self, number: usize) -> PathBuf {
        self.settings_file(&standby_name(number))
    }

    /// The address of a master on standby, counted from 1: `https://127.0.0.1:PORT`. `None`: there is
    /// none of this number.
    #[must_use]
    pub fn standby_address(&self, number: usize) -> Option<String> {
        self.standby(number).map(|standby| address(standby.ports))
    }

    /// The socket at which a master on standby, counted from 1, is administered.
    #[must_use]
    pub fn standby_socket(&self, number: usize) -> PathBuf {
        self.socket_file(&standby_name(number))
    }

    /// How many masters on standby there are.
    #[must_use]
    pub fn standby_count(&self) -> usize {
        self.masters.len().saturating_sub(1)
    }

    /// The address of a server, counted from 1: `https://127.0.0.1:PORT`. `None`: there is none of
    /// this number.
    #[must_use]
    pub fn server_address(&self, number: usize) -> Option<String> {
        self.servers.get(number.checked_sub(1)?).map(|server| address(server.ports))
    }

    /// How many servers there are.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// Starts `sso-master`; it is not yet ready then.
    ///
    /// # Errors
    /// When the program cannot be executed or its log cannot be written.
    pub fn start_master(&self) -> Result<Process, DevelopmentError> {
        self.start(&self.programs.master, self.masters.first(), MASTER)
    }

    /// Starts a master on standby, counted from 1; it is not yet ready then. The first time it is given
    /// a keystore of its own, for which the primary must be running.
    ///
    /// # Errors
    /// When there is none of this number, `sso-master init` fails, the program cannot be executed or
    /// its log cannot be written.
    pub fn start_standby(&self, number: usize) -> Result<Process, DevelopmentError> {
        let name = standby_name(number);
        let [_, keystore, _] = settings::master_files(&name, false);
        if self.standby(number).is_some() && !self.folder.join(keystore).exists() {
            let mut command = Command::new(&self.programs.master);
            command.arg("init").arg("--settings").arg(self.settings_file(&name));
            let log = self.log(&format!("{name}-init"));
            process::complete(&format!("sso-master init of {name}"), command, &log)?;
        }
        self.start(&self.programs.master, self.standby(number), &name)
    }

    /// Starts a server, counted from 1; it is not yet ready then.
    ///
    /// # Errors
    /// When there is none of this number, the program cannot be executed or its log cannot be written.
    pub fn start_server(&self, number: usize) -> Result<Process, DevelopmentError> {
        let server = number.checked_sub(1).and_then(|index| self.servers.get(index));
        self.start(&self.programs.server, server, &format!("sso-server-{number}"))
    }

    fn start(
        &self,
        program: &Path,
        server: Option<&Server>,
        name: &str,
    ) -> Result<Process, DevelopmentError> {
        let settings = self.settings_file(name);
        let Some(Server { name, ports, .. }) = server else {
            let source = io::ErrorKind::NotFound.into();
            return Err(DevelopmentError::File { path: settings, source });
        };
        Process::start(name, program, &settings, operations(*ports), self.log(name))
    }

    fn standby(&self, number: usize) -> Option<&Server> {
        // The first one is the primary.
        if number == 0 { None } else { self.masters.get(number) }
    }

    fn write_material(&self) -> Result<(), DevelopmentError> {
        let mut programs: Vec<_> =
            self.masters.iter().map(|master| (master.name.clone(), Role::Master)).collect();
        programs.extend(self.servers.iter().map(|server| (server.name.clone(), Role::Server)));
        let tls = make_folder(&self.folder.join("tls"))?;
        material::prepare_certificates(&tls, &programs, Clock::System.now())?;
        for master in &self.masters {
            let [passphrase, ..] = settings::master_files(&master.name, master.is_primary());
            material::prepare_passphrase(&self.folder.join(passphrase))?;
        }
        material::prepare_passphrase(&self.folder.join(BACKUP_PASSPHRASE))?;
        material::prepare_groups(&self.folder.join("groups.toml"))
    }

    fn write_settings(&self, options: &Options) -> Result<(), DevelopmentError> {
        let timing = &options.timing;
        let names: Vec<_> = self.servers.iter().map(|server| server.name.clone()).collect();
        let ports: Vec<_> = self.servers.iter().map(|server| server.ports).collect();
        let password = self.folder.join(DATABASE_PASSWORD).exists();
        let database =
            Database { url: &self.database, password_file: password.then_some(DATABASE_PASSWORD) };
        let masters: Vec<_> = self.masters.iter().map(Server::as_master).collect();
        let user = user_name(rustix::process::geteuid().as_raw());
        for own in &masters {
            let others: Vec<_> = masters.iter().filter(|it| it.name != own.name).copied().collect();
            let text = settings::master(*own, &others, &names, user.as_deref(), timing);
            self.write(&self.settings_file(own.name), &text)?;
        }
        for Server { name, ports, .. } in &self.servers {
            let mut text = settings::server(name, *ports, &masters, &database, timing);
            if options.tokens {
                text.push_str(&tokens::section(TOKENS));
            }
            self.write(&self.settings_file(name), &text)?;
        }
        self.write(&self.profiles(), &settings::profile_file(&ports, &self.master_socket()))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), DevelopmentError> {
        write_private(path, text.as_bytes(), true).map_err(DevelopmentError::file(path))
    }

    fn initialise_master(&self) -> Result<(), DevelopmentError> {
        let mut command = Command::new(&self.programs.master);
        command
            .arg("init")
            .arg("--settings")
            .arg(self.master_settings())
            .arg("--backup")
            .arg(self.folder.join(BACKUP))
            .arg("--backup-password-file")
            .arg(self.folder.join(BACKUP_PASSPHRASE))
            .args(["--reminder", "in backup.passphrase beside this file"]);
        process::complete("sso-master init", command, &self.log("sso-master-init"))
    }

    fn socket_file(&self, name: &str) -> PathBuf {
        let [_, _, socket] = settings::master_files(name, name == MASTER);
        self.folder.join(socket)
    }

    fn settings_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.toml"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is being started by another thread.
        let _ = self.lock.unlock();
    }
}

/// Makes the folder where it is missing; one that exists must be the caller's alone to write.
fn make_folder(path: &Path) -> Result<PathBuf, DevelopmentError> {
    let unfit = |what| Err(DevelopmentError::Folder { path: path.to_owned(), what });
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
        return unfit("is not a folder");
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(DevelopmentError::file(path))?;
    let folder = fs::canonicalize(path).map_err(DevelopmentError::file(path))?;
    let metadata = fs::metadata(&folder).map_err(DevelopmentError::file(path))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return unfit("belongs to another user");
    }
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return unfit("can be written by other users (chmod go-w takes that away)");
    }
    Ok(folder)
}

/// The name of a master: the primary is number 0.
fn master_name(number: u32) -> String {
    if number == 0 { MASTER.to_owned() } else { format!("sso-standby-{number}") }
}

fn standby_name(number: usize) -> String {
    format!("sso-standby-{number}")
}

/// The operating system has room for so many bytes of a socket's path.
fn check_socket(folder: &Path, name: &str) -> Result<(), DevelopmentError> {
    let [_, _, socket] = settings::master_files(name, name == MASTER);
    match folder.join(socket).as_os_str().len() {
        ..SOCKET_PATH_LONGEST => Ok(()),
        _ => {
            let what = "has a path too long for the sockets in it (107 bytes with their names)";
            Err(DevelopmentError::Folder { path: folder.to_owned(), what })
        }
    }
}

fn lock(folder: &Path) -> Result<File, DevelopmentError> {
    let path = folder.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(DevelopmentError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DevelopmentError::Busy(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(DevelopmentError::File { path, source }),
    }
}

/// The address without its password, which is kept in a file of its own.
fn keep_password(folder: &Path, url: &str) -> Result<String, DevelopmentError> {
    let path = folder.join(DATABASE_PASSWORD);
    let Some((url, password)) = split_password(url) else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DevelopmentError::File { path, source: error })
            }
            _ => Ok(url.to_owned()),
        };
    };
    // Expose: into a file that only its owner may read.
    write_private(&path, &password, true).map_err(DevelopmentError::file(path))?;
    Ok(url)
}

/// `scheme://user:password@rest` as `scheme://user@rest` and the password, percent-decoded.
fn split_password(url: &str) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@')?;
    let (name, password) = user.split_once(':')?;
    let mut decoded = Zeroizing::new(Vec::with_capacity(password.len()));
    let mut bytes = password.bytes();
    while let Some(byte) = bytes.next() {
        let value = match byte {
            b'%' => {
                let digit = |digit: Option<u8>| char::from(digit?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        };
        decoded.push(value);
    }
    Some((format!("{scheme}://{name}@{host}{path}"), decoded))
}

/// The database that the settings of the last start name.
fn earlier_database(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("sso-server-1.toml")).ok()?;
    let settings: toml::Table = text.parse().ok()?;
    settings.get("database")?.get("url")?.as_str().map(str::to_owned)
}

fn reserved_port() -> Result<ReservedPort, DevelopmentError> {
    ReservedPort::choose().map_err(|source| DevelopmentError::System { what: "free port", source })
}

fn address(ports: Ports) -> String {
    format!("https://127.0.0.1:{}", ports.service)
}

fn operations(ports: Ports) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports.operations).into()
}

#[cfg(test)]
mod tests;
