//! The tools of the reference product, started by their own names against a running system: every
//! switch of the manual (ESSO.md 11), as an old script would use them.

mod documents;
mod every_switch;
mod script;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use sso_tests::system::{Database, System};

/// A running system, and links named after the four tools.
pub(crate) struct Desk {
    pub(crate) system: System,
    folder: tempfile::TempDir,
}

/// How a tool ended.
pub(crate) struct Ran {
    pub(crate) line: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

const END: &str = "The operation completed successfully.\n";

impl Desk {
    pub(crate) fn open() -> Self {
        let system = System::start(Database::Sqlite);
        let folder = tempfile::tempdir().expect("a folder");
        let installed = system.sso_ok("user", &["compat", "install", &path_of(&folder, "")]);
        assert_eq!(installed.lines().count(), 4, "{installed}");
        Self { system, folder }
    }

    /// A file of this content beside the links.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = path_of(&self.folder, name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// A path beside the links.
    pub(crate) fn path(&self, name: &str) -> String {
        path_of(&self.folder, name)
    }

    /// A tool by its own name, to be started by the caller; what is remembered stays in the folder.
    pub(crate) fn command(&self, who: &str, tool: &str) -> Command {
        let program = self.folder.path().join(tool);
        let mut command = self.system.command_of(&program, who);
        command
            .env("XDG_CONFIG_HOME", self.remembered("user"))
            .env("SSO_MACHINE_CONFIG", self.remembered("machine"));
        command
    }

    pub(crate) fn remembered(&self, whose: &str) -> PathBuf {
        self.folder.path().join(whose)
    }

    /// Runs `TOOL SWITCH ARGUMENTS…` to its end, with lines on its standard input.
    pub(crate) fn run(&self, who: &str, line: &[&str], input: &str) -> Ran {
        let (tool, arguments) = line.split_first().expect("a tool");
        let mut command = self.command(who, tool);
        command.args(arguments);
        ended(line.join(" "), command, input)
    }

    /// Runs it; it has to succeed, and to say so between its first and its last line.
    pub(crate) fn ok(&self, who: &str, line: &[&str]) -> String {
        self.ok_with(who, line, "")
    }

    pub(crate) fn ok_with(&self, who: &str, line: &[&str], input: &str) -> String {
        let ran = self.run(who, line, input);
        assert_eq!(ran.code, 0, "{ran}");
        ran.body().to_owned()
    }

    /// Runs it; it has to fail with this code.
    pub(crate) fn refused(&self, who: &str, line: &[&str], code: i32) -> Ran {
        let ran = self.run(who, line, "");
        assert_eq!(ran.code, code, "{ran}");
        assert!(ran.stderr.starts_with("ERROR: "), "{ran}");
        assert!(!ran.stdout.contains(END), "{ran}");
        ran
    }
}

impl Ran {
    /// What stands between the server in use and the last line, which have to be there.
    pub(crate) fn body(&self) -> &str {
        self.stdout
            .strip_prefix("Using SSO server on this computer\n\n")
            .and_then(|rest| rest.strip_suffix(END))
            .unwrap_or_else(|| panic!("{self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, code, stdout, stderr } = self;
        write!(f, "{line}\nexit {code}\n{stdout}{stderr}")
    }
}

fn path_of(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("UTF-8").to_owned()
}

pub(crate) fn ended(line: String, mut command: Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that does not read its input may have ended already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    Ran {
        line,
        code: status.code().expect("an exit code"),
        stdout: String::from_utf8(stdout).expect("UTF-8"),
        stderr: String::from_utf8(stderr).expect("UTF-8"),
    }
}
