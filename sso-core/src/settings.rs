//! Settings of the programs: one strict TOML file each, and the secrets it points at.
//!
//! This room and the rooms named `settings` of the programs are the only ones that read files of
//! settings and the environment.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, Deserializer};

use crate::secret::SecretBytes;

/// The version of the settings format that this program reads.
pub const SETTINGS_VERSION: &str = "1";
/// Bytes of the largest secret file that is read.
const SECRET_FILE_MAX: u64 = 64 * 1024;
/// Bytes of the largest settings file that is read.
const SETTINGS_FILE_MAX: u64 = 4 * 1024 * 1024;

/// Why settings, or a secret they point at, cannot be used. The text never holds a value of theirs
/// that could be secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file of settings is not what it has to be.
    #[error("{}: line {line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, with the key.
        message: String,
    },
    /// A value is well formed and makes no sense.
    #[error("{}: {key}: {message}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The key with its sections, such as `database.url`.
        key: String,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// A file with a secret is open to others.
    #[error(
        "{}: mode {mode:04o} lets other users at a secret: run `chmod 600` on the file",
        path.display()
    )]
    Lax {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may change a file of settings.
    #[error(
        "{}: mode {mode:04o} lets other users change the settings: run `chmod go-w` on the file",
        path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file with a secret is empty, too large or not a file.
    #[error("{}: {message}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: &'static str,
    },
    /// A systemd credential is asked for and there is none.
    #[error("credential {name}: {message}")]
    Credential {
        /// Its name in the settings.
        name: String,
        /// What is wrong.
        message: &'static str,
    },
}

impl SettingsError {
    /// A value of the file `path` under `key` (sections joined with dots) that makes no sense.
    #[must_use]
    pub fn refused(path: &Path, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { path: path.to_owned(), key: key.into(), message: message.into() }
    }
}

/// Reads the TOML file `path` into `T`. The key `version = 1` at the top of the file is required,
/// checked here and **not** passed on: `T` has no field for it. `T` refuses keys it does not know by
/// `#[serde(deny_unknown_fields)]`.
///
/// # Errors
/// The file cannot be read, its group or others may write it, or it is no TOML, has another version,
/// or does not fit `T`: the error names the file, the line and the key.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SettingsError> {
    parse(path, &read_text(path)?)
}

/// The secret in the file `path` without one trailing newline.
///
/// # Errors
/// The file cannot be read, is empty or larger than 64 KiB, or its mode has any bit for the group or
/// for others.
pub fn secret_file(path: &Path) -> Result<SecretBytes, SettingsError> {
    let file = File::open(path).map_err(|source| read_error(path, source))?;
    refuse_lax(path, &file)?;
    read_secret(path, file)
}

/// The secret named by the settings: the systemd credential `credential` (a file below
/// `$CREDENTIALS_DIRECTORY`), else the private file `file`, else `None`.
///
/// # Errors
/// As [`secret_file`]; both are named; the name of the credential is a path; the service manager
/// passes no credentials.
pub fn credential_or_file(
    credential: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<SecretBytes>, SettingsError> {
    match (credential, file) {
        (Some(name), Some(_)) => {
            Err(credential_error(name, "a credential and a file are named: keep one of them"))
        }
        (Some(name), None) => credential_secret(name, credentials_directory()).map(Some),
        (None, Some(path)) => secret_file(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// As [`credential_or_file`], for secrets that are bytes and not text: a newline at the end belongs to
/// the secret.
///
/// # Errors
/// As [`credential_or_file`].
pub fn exact_credential_or_file(
    credential: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<SecretBytes>, SettingsError> {
    let (path, secret) = match (credential, file) {
        (Some(name), None) => open_credential(name, credentials_directory())?,
        (None, Some(path)) => {
            let secret = File::open(path).map_err(|source| read_error(path, source))?;
            refuse_lax(path, &secret)?;
            (path.to_owned(), secret)
        }
        (Some(_), Some(_)) | (None, None) => return credential_or_file(credential, file),
    };
    read_exact_secret(&path, secret).map(Some)
}

/// `path` as the settings in the folder `base` mean it: relative ones start there.
#[must_use]
pub fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

/// The folder that relative paths of the settings file `settings` start from.
#[must_use]
pub fn base_of(settings: &Path) -> PathBuf {
    match settings.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Writes a file that only its owner may read (mode 0600), all of it or nothing: a temporary file in
/// the same folder, synchronised, then renamed, then the folder synchronised.
///
/// # Errors
/// What the operating system refuses; `AlreadyExists` when `path` exists and `overwrite` is false,
/// also when another process makes it at the same moment. After an error a file that was not to be
/// overwritten is not there, unless it was before.
pub fn write_private(path: &Path, content: &[u8], overwrite: bool) -> io::Result<()> {
    write_and_sync(path, content, overwrite, |folder| File::open(folder)?.sync_all())
}

fn write_and_sync(
    path: &Path,
    content: &[u8],
    overwrite: bool,
    sync_folder: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let folder = base_of(path);
    let (temporary, mut file) = create_beside(path, &folder)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| {
        if overwrite { fs::rename(&temporary, path) } else { fs::hard_link(&temporary, path) }
    });
    if written.is_err() || !overwrite {
        // After a rename the name is gone; otherwise it must not stay behind.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    let synced = sync_folder(&folder);
    if synced.is_err() && !overwrite {
        // The name may not outlast a power failure: whoever hears of an error finds no file.
        let _ = fs::remove_file(path);
    }
    synced
}

/// Refuses an open file whose mode has any bit for the group or for others.
pub(crate) fn refuse_lax(path: &Path, file: &File) -> Result<(), SettingsError> {
    let mode = file.metadata().map_err(|source| read_error(path, source))?.mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(SettingsError::Lax { path: path.to_owned(), mode }) }
}

fn read_text(path: &Path) -> Result<String, SettingsError> {
    let unreadable = |source| read_error(path, source);
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(SettingsError::Writable { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(SETTINGS_FILE_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, SettingsError> {
    let invalid = |line, message| SettingsError::Invalid { path: path.to_owned(), line, message };
    let mut table =
        DeTable::parse(text).map_err(|error| invalid(line_of(text, &error), describe(error)))?;
    let Some(version) = table.get_mut().remove("version") else {
        let wanted = format!("version = {SETTINGS_VERSION} is missing");
        return Err(invalid(1, wanted));
    };
    let line = line_at(text, version.span().start);
    match version.get_ref().as_integer() {
        Some(number) if number.radix() == 10 && number.as_str() == SETTINGS_VERSION => {}
        Some(number) => {
            let message =
                format!("version: {number} is not known, this program reads {SETTINGS_VERSION}");
            return Err(invalid(line, message));
        }
        None => return Err(invalid(line, format!("version: write version = {SETTINGS_VERSION}"))),
    }
    T::deserialize(Deserializer::from(table))
        .map_err(|error| invalid(line_of(text, &error), describe(error)))
}

fn line_of(text: &str, error: &toml::de::Error) -> usize {
    line_at(text, error.span().map_or(0, |span| span.start))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

/// The message with the path of the key, and without the quotation of the line, which could hold
/// the password of a database address.
fn describe(mut error: toml::de::Error) -> String {
    error.set_input(None);
    let text = error.to_string();
    match text.trim_end().rsplit_once("\nin `") {
        Some((message, keys)) => format!("{}: {message}", keys.trim_end_matches('`')),
        None => text.trim_end().replace('\n', "; "),
    }
}

fn read_error(path: &Path, source: io::Error) -> SettingsError {
    SettingsError::Read { path: path.to_owned(), source }
}

fn credential_error(name: &str, message: &'static str) -> SettingsError {
    SettingsError::Credential { name: name.to_owned(), message }
}

/// The secret without one trailing newline.
fn read_secret(path: &Path, file: File) -> Result<SecretBytes, SettingsError> {
    whole_secret(path, file, true)
}

fn read_exact_secret(path: &Path, file: File) -> Result<SecretBytes, SettingsError> {
    whole_secret(path, file, false)
}

fn whole_secret(path: &Path, file: File, is_line: bool) -> Result<SecretBytes, SettingsError> {
    let secret_error = |message| SettingsError::Secret { path: path.to_owned(), message };
    let metadata = file.metadata().map_err(|source| read_error(path, source))?;
    if !metadata.is_file() {
        return Err(secret_error("is not a file"));
    }
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut content = Vec::with_capacity(SECRET_FILE_MAX as usize + 1);
    file.take(SECRET_FILE_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|source| read_error(path, source))?;
    if is_line && content.last() == Some(&b'\n') {
        content.pop();
    }
    let size = content.len() as u64;
    let secret = SecretBytes::new(content);
    match size {
        0 => Err(secret_error("is empty, a secret was expected")),
        size if size > SECRET_FILE_MAX => Err(secret_error("is larger than 64 KiB")),
        _ => Ok(secret),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the settings room")]
fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

fn credential_secret(name: &str, directory: Option<PathBuf>) -> Result<SecretBytes, SettingsError> {
    let (path, file) = open_credential(name, directory)?;
    read_secret(&path, file)
}

/// The service manager guards the folder itself, and shows modes widened by access lists: the mode is
/// not checked.
fn open_credential(
    name: &str,
    directory: Option<PathBuf>,
) -> Result<(PathBuf, File), SettingsError> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(credential_error(name, "is not a name of a credential"));
    }
    let directory = directory.ok_or_else(|| {
        credential_error(
            name,
            "$CREDENTIALS_DIRECTORY is not set: start the program by systemd with \
             LoadCredential=, or name a file instead",
        )
    })?;
    let path = directory.join(name);
    let file = File::open(&path).map_err(|source| read_error(&path, source))?;
    Ok((path, file))
}

fn create_beside(path: &Path, folder: &Path) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{name}.{}-{number}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            // Left over by an earlier process of the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (temporary, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        part: Part,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        count: u16,
    }

    fn message(text: &str) -> String {
        parse::<Sample>(Path::new("a.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn good_settings_load() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("good.toml");
        fs::write(&path, "version = 1\nname = 'x'\n[part]\ncount = 3\n").unwrap();
        let sample: Sample = load(&path).unwrap();
        assert_eq!(sample, Sample { name: "x".into(), part: Part { count: 3 } });
    }

    #[test]
    fn settings_that_others_may_change_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open.toml");
        fs::write(&path, "version = 1\nname = 'x'\n[part]\ncount = 3\n").unwrap();
        for (mode, good) in [(0o644, true), (0o600, true), (0o664, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match load::<Sample>(&path) {
                Ok(_) => assert!(good, "{mode:o}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!good && text.contains("chmod go-w"), "{mode:o}: {text}");
                    assert!(text.contains(&format!("{mode:04o}")), "{text}");
                }
            }
        }
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let unknown = message("version = 1\nname = 'x'\n[part]\ncount = 3\ncuont = 4\n");
        assert!(unknown.starts_with("a.toml: line 5: "), "{unknown}");
        assert!(unknown.contains("part: unknown field `cuont`"), "{unknown}");

        let range = message("version = 1\nname = 'x'\n[part]\ncount = 70000\n");
        assert!(range.starts_with("a.toml: line 4: part.count: "), "{range}");

        let missing = message("version = 1\nname = 'x'\n\n[part]\n");
        assert!(missing.starts_with("a.toml: line 4: part: missing field `count`"), "{missing}");

        let syntax = message("version = 1\nname = \n");
        assert!(syntax.starts_with("a.toml: line 2: "), "{syntax}");

        let twice = message("version = 1\nname = 'x'\nname = 'y'\n");
        assert!(twice.starts_with("a.toml: line 3: "), "{twice}");
    }

    #[test]
    fn the_version_is_required_and_known() {
        assert_eq!(message("name = 'x'\n"), "a.toml: line 1: version = 1 is missing");
        let newer = message("name = 'x'\nversion = 2\n");
        assert_eq!(newer, "a.toml: line 2: version: 2 is not known, this program reads 1");
        assert!(message("version = '1'\n").contains("write version = 1"));
    }

    #[test]
    fn the_line_itself_is_not_quoted() {
        let text = "version = 1\nname = 'postgres://sso:hunter2@host/sso' oops\n";
        assert!(!message(text).contains("hunter2"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Sample>(Path::new("/nowhere/sso.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/sso.toml: cannot be read: "), "{error}");
    }

    #[test]
    fn secret_files_are_private_and_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_private(&path, b"pass phrase\n", false).unwrap();
        assert_eq!(secret_file(&path).unwrap().expose(), b"pass phrase");

        for mode in [0o640, 0o604, 0o610, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = secret_file(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains("secret"), "{error}");
        }

        write_private(&path, b"\n", true).unwrap();
        assert!(secret_file(&path).unwrap_err().to_string().contains("is empty"));
        write_private(&path, &vec![b'x'; 65_537], true).unwrap();
        assert!(secret_file(&path).unwrap_err().to_string().contains("64 KiB"));
        assert!(secret_file(folder.path()).is_err());
    }

    #[test]
    fn credentials_come_from_their_folder_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pass"), "x").unwrap();
        let directory = || Some(folder.path().to_owned());
        assert_eq!(credential_secret("pass", directory()).unwrap().expose(), b"x");
        assert!(credential_secret("../pass", directory()).is_err());
        assert!(credential_secret("other", directory()).is_err());
        let error = credential_secret("pass", None).unwrap_err().to_string();
        assert!(error.contains("LoadCredential"), "{error}");
        assert!(credential_or_file(Some("a"), Some(Path::new("b"))).is_err());
        assert!(credential_or_file(None, None).unwrap().is_none());
    }

    #[test]
    fn private_files_appear_whole_and_never_replace_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private(&path, b"one", false).unwrap();
        let error = write_private(&path, b"two", false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_private(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_whose_name_may_be_lost_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let fails = |_: &Path| Err(io::Error::from(io::ErrorKind::Other));
        assert!(write_and_sync(&path, b"one", false, fails).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        write_private(&path, b"one", false).unwrap();
        let error = write_and_sync(&path, b"two", false, fails).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn relative_paths_start_at_the_settings() {
        let base = base_of(Path::new("/etc/sso/server.toml"));
        assert_eq!(resolve(&base, Path::new("tls/a.crt")), Path::new("/etc/sso/tls/a.crt"));
        assert_eq!(resolve(&base, Path::new("/b.crt")), Path::new("/b.crt"));
        assert_eq!(base_of(Path::new("server.toml")), Path::new("."));
    }
}
