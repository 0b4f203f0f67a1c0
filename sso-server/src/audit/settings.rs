//! The section `[audit]` of the settings: where the journal is, and how sure a record has to be.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::Access;
use serde::Deserialize;
use sso_core::settings::resolve;

use crate::storage::DatabaseUrl;

const FOLDER: &str = "audit";
const MEBIBYTE: u64 = 1 << 20;
/// Mebibytes.
const DEFAULT_MOST: u64 = 1024;

/// When a record is safe enough for the answer to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditMode {
    /// When the operating system has it: it survives the end of the process, however that comes. It is
    /// on the disk within one second.
    #[default]
    Journal,
    /// When it is on the disk.
    Durable,
}

/// `[audit]` as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSection {
    journal: Option<PathBuf>,
    #[serde(default)]
    mode: AuditMode,
    journal_max_mb: Option<u64>,
}

/// How reveals and denials are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The folder of the journal.
    pub journal: PathBuf,
    /// When the answer may leave.
    pub mode: AuditMode,
    /// Bytes that the journal takes at the most while the database is away.
    pub journal_max: u64,
}

impl AuditSection {
    /// Settles the folder: that of the settings, else below the state directory of the service manager,
    /// else beside the SQLite file, else beside the settings.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn build(
        &self,
        base: &Path,
        database: &DatabaseUrl,
    ) -> Result<AuditSettings, (&'static str, String)> {
        let most = self.journal_max_mb.unwrap_or(DEFAULT_MOST);
        if !(1..=1024 * 1024).contains(&most) {
            return Err(("journal_max_mb", "must be 1 to 1048576".to_owned()));
        }
        let journal = match &self.journal {
            Some(folder) => resolve(base, folder),
            None => default_folder(state_directory(), base, database),
        };
        Ok(AuditSettings { journal, mode: self.mode, journal_max: most * MEBIBYTE })
    }
}

impl AuditSettings {
    /// The defaults, in this folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let journal_max = DEFAULT_MOST * MEBIBYTE;
        Self { journal: folder.to_owned(), mode: AuditMode::default(), journal_max }
    }

    /// Looks whether the folder can be written, or made, and changes nothing.
    ///
    /// # Errors
    /// Names the folder, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let folder = &self.journal;
        let existing = folder.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
        if !existing.is_dir() {
            return Err(self.refused(&format!("{} is no folder", existing.display())));
        }
        rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| self.refused(&format!("{}: {error}", existing.display())))
    }

    /// Makes the folder, for this user alone.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if self.journal.is_dir() {
            let mode = fs::metadata(&self.journal)?.permissions().mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(&self.journal, Permissions::from_mode(0o700))?;
            }
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.journal)
    }

    /// The words for a folder that cannot be used.
    pub(super) fn refused(&self, why: &str) -> String {
        format!(
            "the folder of the audit journal, {}, cannot be used: {why}; let this user write there, or \
             name another one as audit.journal",
            self.journal.display()
        )
    }
}

fn default_folder(state: Option<PathBuf>, base: &Path, database: &DatabaseUrl) -> PathBuf {
    match (state, database) {
        (Some(state), _) => state.join(FOLDER),
        (None, DatabaseUrl::Sqlite(file)) => {
            file.parent().map_or_else(|| base.join(FOLDER), |folder| folder.join(FOLDER))
        }
        (None, DatabaseUrl::Postgres(_)) => base.join(FOLDER),
    }
}

/// The first of the folders that systemd made (`StateDirectory=`).
#[expect(clippy::disallowed_methods, reason = "this is the settings room")]
fn state_directory() -> Option<PathBuf> {
    let all = std::env::var_os("STATE_DIRECTORY")?;
    std::env::split_paths(&all).find(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<AuditSettings, (&'static str, String)> {
        let section: AuditSection = toml::from_str(text).unwrap();
        let database = DatabaseUrl::parse("sqlite:/var/sso.db").unwrap();
        section.build(Path::new("/etc/sso"), &database)
    }

    #[test]
    fn the_folder_is_where_the_state_is() {
        let sqlite = DatabaseUrl::parse("sqlite:/var/sso.db").unwrap();
        let postgres = DatabaseUrl::parse("postgres://host/sso").unwrap();
        let base = Path::new("/etc/sso");
        let folder = |state: Option<&str>, database| {
            default_folder(state.map(PathBuf::from), base, database).display().to_string()
        };
        assert_eq!(folder(Some("/var/lib/sso"), &sqlite), "/var/lib/sso/audit");
        assert_eq!(folder(None, &sqlite), "/var/audit");
        assert_eq!(folder(None, &postgres), "/etc/sso/audit");
        let own = build("journal = 'j'\nmode = 'durable'\njournal_max_mb = 7").unwrap();
        let journal_max = 7 << 20;
        let expected =
            AuditSettings { journal: "/etc/sso/j".into(), mode: AuditMode::Durable, journal_max };
        assert_eq!(own, expected);
        assert_eq!(build("journal_max_mb = 0").unwrap_err().0, "journal_max_mb");
        assert!(toml::from_str::<AuditSection>("mode = 'sometimes'").is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = AuditSettings::in_folder(&file.join("journal")).check().unwrap_err();
        assert!(refused.contains("file/journal") && refused.contains("audit.journal"), "{refused}");
        let fine = AuditSettings::in_folder(&place.path().join("a/b"));
        fine.check().unwrap();
        assert!(!fine.journal.exists(), "a check makes nothing");
        fine.prepare().unwrap();
        let mode = fs::metadata(&fine.journal).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
