//! Finding and opening the database.

use std::{
    fmt,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Row as _,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use sso_core::{clock::Clock, secret::SecretText};
use sso_proto::Event;

use super::{
    Dialect, Group, Losses, Storage, StorageError, Waiting, Writers, batches::Batches,
    error::may_pass, notices::Notices,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an operation waits for a connection to become free.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the database is. Holds no password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The file of an SQLite database.
    Sqlite(PathBuf),
    /// A `postgres://` URL with a host, or with `?host=` and the folder of a socket.
    Postgres(String),
}

impl DatabaseUrl {
    /// Parses `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
    ///
    /// # Errors
    /// `Settings` for anything else, for an SQLite database in memory, for a PostgreSQL URL that
    /// names no host or carries a password.
    pub fn parse(text: &str) -> Result<Self, StorageError> {
        let refuse = |what: &str| Err(StorageError::Settings(what.to_owned()));
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" || path.contains(['?', '\0']) {
                return refuse("write sqlite: and the path of a file, without parameters");
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return refuse("the URL must begin with sqlite: or postgres://");
        }
        let url = parse_postgres(text)?.database_url;
        if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
            return refuse("the URL holds a password; put it into a file and name that");
        }
        if postgres_hosts(text)?.is_empty() {
            return refuse(
                "the URL names no host; write postgres://HOST/… or ?host=/SOCKET/FOLDER",
            );
        }
        Ok(Self::Postgres(text.to_owned()))
    }

    /// The same with a relative path taken as relative to `base`.
    #[must_use]
    pub fn resolve(self, base: &Path) -> Self {
        match self {
            Self::Sqlite(path) => Self::Sqlite(base.join(path)),
            Self::Postgres(url) => Self::Postgres(url),
        }
    }

    /// Which kind of database.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(url),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How to open the database.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// Where it is.
    pub url: DatabaseUrl,
    /// The password of the PostgreSQL user.
    pub password: Option<SecretText>,
    /// At most this many connections: for reading on SQLite; for reading and for writing together, half
    /// of them each, on PostgreSQL. Two at least.
    pub max_connections: u32,
    /// For how long opening goes on trying while the database does not answer.
    pub connect_deadline: Duration,
}

impl DatabaseSettings {
    /// 16 connections, one minute of trying.
    #[must_use]
    pub fn new(url: DatabaseUrl) -> Self {
        Self { url, password: None, max_connections: 16, connect_deadline: Duration::from_secs(60) }
    }

    fn options(&self) -> Result<AnyConnectOptions, StorageError> {
        let options = match &self.url {
            DatabaseUrl::Sqlite(path) => sqlite_options(path)?,
            DatabaseUrl::Postgres(url) => {
                let mut options = parse_postgres(url)?;
                let named = |key: &str| options.database_url.query_pairs().any(|(k, _)| k == key);
                if !named("sslmode") && !named("ssl-mode") && !is_local(url)? {
                    options.database_url.query_pairs_mut().append_pair("sslmode", "verify-full");
                }
                if let Some(password) = &self.password {
                    // Expose: the driver takes its options as a URL only.
                    let password = password.expose();
                    options.database_url.query_pairs_mut().append_pair("password", password);
                }
                options
            }
        };
        Ok(options.disable_statement_logging())
    }
}

impl Storage {
    /// Opens the database, and waits for it up to the deadline while it does not answer. A new
    /// SQLite file is made readable for its owner alone. The schema is not looked at: see
    /// [`Storage::migrate`] and [`Storage::verify_schema`].
    ///
    /// # Errors
    /// `Settings` when the settings cannot work; `Unavailable` when the database refuses or does not
    /// answer in time.
    pub async fn open(settings: &DatabaseSettings, clock: Clock) -> Result<Self, StorageError> {
        sqlx::any::install_default_drivers();
        let dialect = settings.url.dialect();
        if let DatabaseUrl::Sqlite(path) = &settings.url {
            create_private(path)?;
        }
        let options = settings.options()?;
        reach(&options, dialect, settings.connect_deadline).await?;

        tell_encryption(&options, &settings.url);
        let most = settings.max_connections.max(2);
        let (readers, writers) = match dialect {
            Dialect::Sqlite => (most, 1),
            // Writers that wait for each other leave connections for those who only read.
            Dialect::Postgres => (most - most / 2, most / 2),
        };
        let losses = Losses::new(clock.clone());
        let reads = dialect.on_connect(dialect == Dialect::Postgres);
        let readers = pool(&options, readers, reads, &losses);
        let writers = pool(&options, writers, dialect.on_connect(true), &losses);
        let notices = match dialect {
            Dialect::Sqlite => None,
            Dialect::Postgres => Some(Notices::new(&options)?),
        };
        let batches = Arc::new(Batches::new());
        let runtime = tokio::runtime::Handle::current();
        let writers = match dialect {
            Dialect::Sqlite => {
                let group = Group::new(writers.clone(), runtime.clone(), clock.clone());
                Writers::Sqlite(group, writers)
            }
            Dialect::Postgres => Writers::Postgres(writers),
        };
        let waiting = Waiting::default();
        Ok(Self { readers, writers, waiting, runtime, clock, losses, notices, batches })
    }
}

/// Says whether the database is reached over TLS. Options that leave it to the database do not count.
fn tell_encryption(options: &AnyConnectOptions, database: &DatabaseUrl) {
    let encrypted = options.database_url.query_pairs().any(|(key, mode)| {
        matches!(&*key, "sslmode" | "ssl-mode")
            && matches!(&*mode, "require" | "verify-ca" | "verify-full")
    });
    if encrypted {
        tracing::info!(event = Event::DatabaseWithTls.number(), %database, "database over TLS");
    } else {
        tracing::info!(event = Event::DatabaseWithoutTls.number(), %database, "database without TLS");
    }
}

fn pool(
    options: &AnyConnectOptions,
    most: u32,
    on_connect: &'static str,
    losses: &Losses,
) -> AnyPool {
    let losses = losses.clone();
    AnyPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // One that was at work a moment ago is not asked first whether it lives: that would double the way
        // to the database and back of every read. One that died meanwhile fails its next statement, and the
        // others are asked from then on.
        .test_before_acquire(false)
        .before_acquire(move |connection, about| {
            let doubt = losses.doubt(about.idle_for);
            Box::pin(async move {
                if doubt {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(on_connect).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options.clone())
}

/// Connects once, and again while that may help.
async fn reach(
    options: &AnyConnectOptions,
    dialect: Dialect,
    deadline: Duration,
) -> Result<(), StorageError> {
    let late = || StorageError::Unavailable("no answer in time".to_owned());
    let mut last = late();
    let attempts = async {
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, prepare(options, dialect)).await;
            last = match attempt {
                Ok(Ok(())) => return Ok(()),
                Ok(Err((error, may_pass))) if !may_pass => return Err(error),
                Ok(Err((error, _))) => error,
                Err(_) => late(),
            };
            tracing::warn!(event = Event::DatabaseSilent.number(), error = %last, "the database does not answer yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    let outcome = tokio::time::timeout(deadline, attempts).await;
    outcome.unwrap_or(Err(last))
}

/// Connects, and switches a file to the write-ahead log; an error says whether trying again can help.
async fn prepare(
    options: &AnyConnectOptions,
    dialect: Dialect,
) -> Result<(), (StorageError, bool)> {
    let sort = |error: sqlx::Error| {
        let may_pass = may_pass(&error);
        (StorageError::from(error), may_pass)
    };
    let mut connection = options.connect().await.map_err(sort)?;
    if dialect == Dialect::Sqlite {
        let mode = switch_to_wal(&mut connection).await.map_err(sort)?;
        if mode != "wal" {
            let what = format!(
                "the file system of the SQLite file does not serve a write-ahead log (mode \"{mode}\")"
            );
            return Err((StorageError::Settings(what), false));
        }
    }
    connection.close().await.map_err(sort)
}

/// Switches the file to the write-ahead log: readers go on while one writes. The file remembers it.
/// The mode it then is in.
async fn switch_to_wal(connection: &mut AnyConnection) -> Result<String, sqlx::Error> {
    let rows = sqlx::query("PRAGMA journal_mode = WAL").fetch_all(connection).await?;
    Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default())
}

/// Makes the file of a new database before SQLite does, so that nobody else can read it. The files
/// that SQLite puts beside it take its mode.
fn create_private(path: &Path) -> Result<(), StorageError> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StorageError::Settings(format!("{}: {error}", path.display()))),
    }
}

fn sqlite_options(path: &Path) -> Result<AnyConnectOptions, StorageError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| StorageError::Settings(format!("{}: {error}", path.display())))?;
    let mut url = String::from("sqlite://");
    for byte in absolute.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                url.push(char::from(*byte));
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url.parse().map_err(|_| StorageError::Settings(format!("{}: no usable path", path.display())))
}

fn parse_postgres(url: &str) -> Result<AnyConnectOptions, StorageError> {
    // The error of the parser says what is wrong without repeating the URL.
    url.parse().map_err(|error: sqlx::Error| StorageError::Settings(error.to_string()))
}

/// Every host the URL names: in its authority, and in its parameters.
fn postgres_hosts(url: &str) -> Result<Vec<String>, StorageError> {
    let url = parse_postgres(url)?.database_url;
    let authority = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned);
    let parameters = url
        .query_pairs()
        .filter(|(key, _)| key == "host" || key == "hostaddr")
        .map(|(_, value)| value.into_owned());
    Ok(authority.into_iter().chain(parameters).collect())
}

/// Whether nothing between here and the database is a network.
fn is_local(url: &str) -> Result<bool, StorageError> {
    Ok(postgres_hosts(url)?.iter().all(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.starts_with('/')
            || host.to_ascii_lowercase().starts_with("%2f")
            || host == "localhost"
            || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_work_are_refused() {
        for bad in [
            "sqlite:",
            "sqlite::memory:",
            "sqlite:a.db?mode=ro",
            "mysql://host/db",
            "/var/lib/sso.db",
            "postgres:///db",
            "postgres://user:pw@host/db",
            "postgres://user@host/db?password=pw",
            "postgres://user@host:port/db",
        ] {
            let error = DatabaseUrl::parse(bad).unwrap_err();
            assert!(matches!(error, StorageError::Settings(_)), "{bad}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }

    #[test]
    fn relative_files_are_resolved() {
        let url = DatabaseUrl::parse("sqlite:sso.db").unwrap().resolve(Path::new("/etc/sso"));
        assert_eq!(url, DatabaseUrl::Sqlite("/etc/sso/sso.db".into()));
        let url = DatabaseUrl::parse("sqlite:///var/sso.db").unwrap().resolve(Path::new("/etc"));
        assert_eq!(url.to_string(), "sqlite:/var/sso.db");
    }

    #[test]
    fn remote_servers_are_verified_unless_the_url_says_otherwise() {
        let mode = |url: &str| {
            let settings = DatabaseSettings::new(DatabaseUrl::parse(url).unwrap());
            let options = settings.options().unwrap();
            let mode = options.database_url.query_pairs().find(|(key, _)| key == "sslmode");
            mode.map(|(_, mode)| mode.into_owned())
        };
        assert_eq!(mode("postgres://db.example/sso").as_deref(), Some("verify-full"));
        assert_eq!(mode("postgres://localhost/sso?host=10.0.0.9").as_deref(), Some("verify-full"));
        assert_eq!(mode("postgres://db.example/sso?sslmode=require").as_deref(), Some("require"));
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert_eq!(mode(&format!("postgres://{local}/sso")), None, "{local}");
        }
        assert_eq!(mode("postgres:///sso?host=/run/postgresql&user=sso"), None);
    }

    #[test]
    fn the_password_reaches_the_driver_and_nothing_else() {
        let mut settings =
            DatabaseSettings::new(DatabaseUrl::parse("postgres://sso@localhost/sso").unwrap());
        settings.password = Some(SecretText::new("p&w%=ö".into()));
        assert!(!format!("{settings:?} {}", settings.url).contains("p&w"));
        let options = settings.options().unwrap();
        let password = options.database_url.query_pairs().find(|(key, _)| key == "password");
        assert_eq!(password.unwrap().1, "p&w%=ö");
    }
}
