//! Folders that are prepared, and those that are refused.

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
        "master.passphrase",
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
fn standbys_have_files_of_their_own_and_a_keystore_at_their_first_start() {
    let (_kept, programs) = programs();
    let folder = tempfile::tempdir().unwrap();
    let options = Options { standbys: 2, ..Options::default() };
    let made = Installation::prepare(folder.path(), programs, &options).unwrap();
    assert_eq!(made.standby_count(), 2);
    let text = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(text(made.master_settings()).matches("[[peer]]").count(), 2);
    assert_eq!(text(made.standby_settings(2)).matches("[[peer]]").count(), 2);
    for address in [made.master_address(), made.standby_address(2).unwrap()] {
        assert!(text(made.server_settings(1)).contains(&address), "{address}");
    }
    assert!(text(made.profiles()).contains(&made.master_socket().display().to_string()));
    assert!(made.standby_socket(2).ends_with("sso-standby-2.sock"));
    drop(made.start_standby(1).unwrap());
    let init = text(made.folder().join("logs/sso-standby-1-init.log"));
    assert!(init.starts_with("init --settings ") && !init.contains("--backup"), "{init}");
    for none in [0, 3] {
        assert!(made.start_standby(none).is_err());
        assert_eq!(made.standby_address(none), None);
    }
}

#[test]
fn a_folder_with_too_long_a_path_is_refused_before_anything_is_made() {
    let (_kept, programs) = programs();
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(100));
    let refused = Installation::prepare(&long, programs, &Options::default());
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("too long for the sockets"), "{error}");
    assert!(!long.join("tls").exists());
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
