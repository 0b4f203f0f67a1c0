//! The folder of a throw-away system, and the start of its programs.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use sso_core::{clock::Clock, settings::write_private};
use zeroize::Zeroizing;

use super::{
    DevelopmentError, Process, Programs, material,
    ports::free_port,
    process,
    settings::{self, Database, Ports},
};
use crate::certificates::Role;

const MASTER: &str = "sso-master";
const KEYSTORE: &str = "keystore.json";
const MASTER_PASSPHRASE: &str = "master.passphrase";
const BACKUP: &str = "master-secret.backup";
const BACKUP_PASSPHRASE: &str = "backup.passphrase";
const PROFILES: &str = "profiles.toml";
const DATABASE_PASSWORD: &str = "database.password";
/// Relative to the settings file of the server, so to the folder.
const SQLITE: &str = "sqlite:sso.db";

/// Permission bits: group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

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
    /// How long the programs wait for one another.
    pub timing: Timing,
}

impl Default for Options {
    fn default() -> Self {
        Self { database: None, servers: 1, timing: Timing::default() }
    }
}

struct Server {
    name: String,
    ports: Ports,
}

/// A prepared folder. Nobody else prepares it as long as this value lives.
pub struct Installation {
    folder: PathBuf,
    programs: Programs,
    master: Ports,
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
            .map(|number| Ok(Server { name: format!("sso-server-{number}"), ports: ports()? }))
            .collect::<Result<Vec<_>, DevelopmentError>>()?;
        let database = match &options.database {
            Some(url) => keep_password(&folder, url)?,
            None => earlier_database(&folder).unwrap_or_else(|| SQLITE.to_owned()),
        };
        let first_time = !folder.join(KEYSTORE).exists();
        let installation =
            Self { folder, programs, master: ports()?, servers, database, first_time, lock };
        installation.write_material()?;
        installation.write_settings(&options.timing)?;
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
        address(self.master)
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
        Process::start(
            MASTER,
            &self.programs.master,
            &self.master_settings(),
            operations(self.master),
            self.log(MASTER),
        )
    }

    /// Starts a server, counted from 1; it is not yet ready then.
    ///
    /// # Errors
    /// When there is none of this number, the program cannot be executed or its log cannot be written.
    pub fn start_server(&self, number: usize) -> Result<Process, DevelopmentError> {
        let settings = self.server_settings(number);
        let server = number.checked_sub(1).and_then(|index| self.servers.get(index));
        let Some(Server { name, ports }) = server else {
            let source = io::ErrorKind::NotFound.into();
            return Err(DevelopmentError::File { path: settings, source });
        };
        let program = &self.programs.server;
        Process::start(name, program, &settings, operations(*ports), self.log(name))
    }

    fn write_material(&self) -> Result<(), DevelopmentError> {
        let mut programs = vec![(MASTER.to_owned(), Role::Master)];
        programs.extend(self.servers.iter().map(|server| (server.name.clone(), Role::Server)));
        let tls = make_folder(&self.folder.join("tls"))?;
        material::prepare_certificates(&tls, &programs, Clock::System.now())?;
        material::prepare_passphrase(&self.folder.join(MASTER_PASSPHRASE))?;
        material::prepare_passphrase(&self.folder.join(BACKUP_PASSPHRASE))?;
        material::prepare_groups(&self.folder.join("groups.toml"))
    }

    fn write_settings(&self, timing: &Timing) -> Result<(), DevelopmentError> {
        let names: Vec<_> = self.servers.iter().map(|server| server.name.clone()).collect();
        let ports: Vec<_> = self.servers.iter().map(|server| server.ports).collect();
        let password = self.folder.join(DATABASE_PASSWORD).exists();
        let database =
            Database { url: &self.database, password_file: password.then_some(DATABASE_PASSWORD) };
        let master = settings::master(MASTER, self.master, &names, timing);
        self.write(&self.master_settings(), &master)?;
        for Server { name, ports } in &self.servers {
            let text = settings::server(name, *ports, self.master, &database, timing);
            self.write(&self.settings_file(name), &text)?;
        }
        self.write(&self.profiles(), &settings::profile_file(&ports))
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

fn ports() -> Result<Ports, DevelopmentError> {
    let port =
        || free_port().map_err(|source| DevelopmentError::System { what: "free port", source });
    Ok(Ports { service: port()?, operations: port()? })
}

fn address(ports: Ports) -> String {
    format!("https://127.0.0.1:{}", ports.service)
}

fn operations(ports: Ports) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports.operations).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder of programs that do nothing and say that it went well.
    fn programs() -> (tempfile::TempDir, Programs) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sso", "sso-master", "sso-server"] {
            process::tests::script(&folder.path().join(name), "echo \"$@\"");
        }
        let programs = Programs::in_folder(folder.path()).unwrap();
        (folder, programs)
    }

    #[test]
    fn everything_in_the_folder_is_private_where_it_is_secret() {
        let (_kept, programs) = programs();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new").join("dev");
        let made = Installation::prepare(&folder, programs, &Options::default()).unwrap();
        let mode = |name: &str| {
            let metadata = fs::metadata(made.folder().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode("."), 0o700);
        for name in [
            "sso-master.toml",
            "sso-server-1.toml",
            "profiles.toml",
            MASTER_PASSPHRASE,
            BACKUP_PASSPHRASE,
            "tls/ca.key",
            "tls/admin.key",
            "tls/sso-master.key",
            "tls/sso-server-1.key",
        ] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        let init = fs::read_to_string(made.folder().join("logs/sso-master-init.log")).unwrap();
        assert!(init.starts_with("init --settings "), "{init}");
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let (_kept, programs) = programs();
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| {
            let made = Installation::prepare(path, programs.clone(), &Options::default());
            made.err().map(|error| error.to_string()).unwrap_or_default()
        };
        for mode in [0o720, 0o702] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused(folder.path()).contains("written by other users"), "{mode:o}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(refused(folder.path()), "");
        assert_eq!(refused(Path::new("/dev/null")), "/dev/null is not a folder");
        // The superuser owns it.
        if !rustix::process::geteuid().is_root() {
            assert!(refused(Path::new("/usr")).contains("belongs to another user"));
        }
    }

    #[test]
    fn a_password_in_the_address_goes_into_a_file() {
        let (_kept, programs) = programs();
        let folder = tempfile::tempdir().unwrap();
        let url = "postgres://sso:p%40ss:w@localhost:5432/sso?sslmode=disable";
        let options = Options { database: Some(url.into()), ..Options::default() };
        let made = Installation::prepare(folder.path(), programs, &options).unwrap();
        assert_eq!(made.database(), "postgres://sso@localhost:5432/sso?sslmode=disable");
        let password = made.folder().join(DATABASE_PASSWORD);
        assert_eq!(fs::read(&password).unwrap(), b"p@ss:w");
        assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o777, 0o600);
        let settings = fs::read_to_string(made.server_settings(1)).unwrap();
        assert!(settings.contains("password_file = \"database.password\""), "{settings}");
        assert!(!settings.contains("p%40ss"), "{settings}");
        assert!(split_password("postgres://localhost/a:b@c").is_none());
    }

    #[test]
    fn a_folder_has_one_user_at_a_time_and_remembers_its_database() {
        let (_kept, programs) = programs();
        let folder = tempfile::tempdir().unwrap();
        let url = "postgres://localhost/sso";
        let options = Options { database: Some(url.into()), ..Options::default() };
        let first = Installation::prepare(folder.path(), programs.clone(), &options).unwrap();
        let second = Installation::prepare(folder.path(), programs.clone(), &Options::default());
        assert!(matches!(second, Err(DevelopmentError::Busy(_))));
        drop(first);
        let later = Installation::prepare(folder.path(), programs, &Options::default()).unwrap();
        assert_eq!(later.database(), url);
    }
}
