//! Why a command failed: one enum, one exit code each.

use std::{io, path::Path};

use sso_client::{ClientError, ProfileError, xml::XmlError};
use sso_core::exit::Exit;

/// What `main` reports and turns into an exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The service refused, or was not reached.
    Client(ClientError),
    /// Refused here, before anything was sent or changed.
    Refused { message: String, hint: Option<String> },
    /// The command line makes no sense.
    Usage { message: String, hint: Option<String> },
    /// A file given by the user is malformed.
    File { file: String, message: String },
    /// Profile, settings, certificate files.
    Settings(String),
    /// A part could not be started or did not become ready.
    Unavailable(String),
    /// A file or a stream could not be read or written.
    Io { what: String, source: io::Error },
    /// The command given to `sso dev` cannot be run.
    Command { program: String, source: io::Error },
    /// Everything was reported; only the exit code is left.
    Reported(u8),
    /// Nobody reads the output any more.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    pub(crate) fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.kind() == io::ErrorKind::BrokenPipe {
            true => Self::BrokenPipe,
            false => Self::Io { what: what.into(), source },
        }
    }

    pub(crate) fn xml(file: &Path, error: &XmlError) -> Self {
        Self::File { file: file_name(file), message: error.to_string() }
    }

    /// 0 done, 1 refused, 2 usage or a malformed file, 64 settings, 69 unavailable, 77 denied; as in a
    /// shell 127 for a command that is not found and 126 for one that cannot be executed.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_code(),
            Self::Refused { .. } | Self::Io { .. } => Exit::Refused.code(),
            Self::Usage { .. } | Self::File { .. } => Exit::Usage.code(),
            Self::Settings(_) => Exit::Settings.code(),
            Self::Unavailable(_) => Exit::Unavailable.code(),
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Command { .. } => 126,
            Self::Reported(code) => *code,
            Self::BrokenPipe => Exit::Ok.code(),
        }
    }

    /// Stable word for scripts that read errors as JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Client(error) => error.kind(),
            Self::Refused { .. } => "refused",
            Self::Usage { .. } => "usage",
            Self::File { .. } => "malformed_file",
            Self::Settings(_) => "settings",
            Self::Unavailable(_) => "unavailable",
            Self::Io { .. } => "input_output",
            Self::Command { .. } => "command",
            Self::Reported(_) => "reported",
            Self::BrokenPipe => "broken_pipe",
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Client(error) => error.to_string(),
            Self::Refused { message, .. } | Self::Usage { message, .. } => message.clone(),
            Self::File { file, message } => format!("{file}: {message}"),
            Self::Settings(message) | Self::Unavailable(message) => message.clone(),
            Self::Io { what, source } => format!("{what}: {source}"),
            Self::Command { program, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("{program}: command not found")
            }
            Self::Command { program, source } => format!("{program}: cannot be executed: {source}"),
            Self::Reported(_) | Self::BrokenPipe => String::new(),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint().map(str::to_owned),
            Self::Refused { hint, .. } | Self::Usage { hint, .. } => hint.clone(),
            Self::File { .. }
            | Self::Settings(_)
            | Self::Unavailable(_)
            | Self::Io { .. }
            | Self::Command { .. }
            | Self::Reported(_)
            | Self::BrokenPipe => None,
        }
    }
}

/// How a file given by the user is called; `-` is standard input.
pub(crate) fn file_name(file: &Path) -> String {
    match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        Self::Settings(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_exit_code() {
        let io = |kind| Failure::io("output", io::Error::from(kind));
        let command =
            |kind: io::ErrorKind| Failure::Command { program: "tour".into(), source: kind.into() };
        for (failure, code) in [
            (Failure::refused("no", "do"), 1),
            (Failure::usage("what"), 2),
            (Failure::File { file: "a.xml".into(), message: "line 1, column 1: x".into() }, 2),
            (Failure::Settings("no profile".into()), 64),
            (Failure::Unavailable("not ready".into()), 69),
            (io(io::ErrorKind::StorageFull), 1),
            (io(io::ErrorKind::BrokenPipe), 0),
            (command(io::ErrorKind::NotFound), 127),
            (command(io::ErrorKind::PermissionDenied), 126),
            (Failure::Reported(7), 7),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }
}
