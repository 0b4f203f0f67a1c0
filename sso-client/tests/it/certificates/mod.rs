//! `sso cert`, as its own process.

mod commands;
pub(crate) mod openssl;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::cli::Ran;

/// A folder, and commands in it: a word that starts with `@` or `file:@` is a path in the folder.
struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace()
            .map(|word| match word.strip_prefix("file:@").or(word.strip_prefix('@')) {
                Some(name) => {
                    let kind = if word.starts_with('@') { "" } else { "file:" };
                    format!("{kind}{}", self.path(name).display())
                }
                None => word.to_owned(),
            })
            .collect()
    }

    /// Runs `sso cert LINE` without a terminal.
    fn sso(&self, line: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sso"));
        command.arg("cert").args(self.words(line)).env_clear();
        finish(&mut command)
    }

    /// What it prints where it has to succeed.
    fn ok(&self, line: &str) -> String {
        let ran = self.sso(line);
        assert_eq!(ran.code, 0, "{line}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Its exit code, and words of what it says.
    fn fails(&self, line: &str, code: i32, words: &str) {
        let ran = self.sso(line);
        assert_eq!(ran.code, code, "{line}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(words), "{line}: {}", ran.stderr);
        assert!(!ran.stderr.contains("canary"), "{line}: {}", ran.stderr);
    }

    fn secret(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A root in `root`, an intermediate authority in `pki`, and `gw.crt` with `gw.key` of it.
    fn with_pki() -> Self {
        let room = Self::new();
        room.ok("ca --out @root --name Root");
        room.ok("ca --out @pki --name Below --parent @root");
        room.ok("issue --ca @pki --out @ --name gw --role client --account CORP\\gw");
        room
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn finish(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
