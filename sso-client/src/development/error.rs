//! Why a throw-away system does not run.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::certificates::CertificateError;

/// Why a throw-away system could not be made or does not run.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// Programs that are expected beside this one and are not there.
    #[error(
        "{} not found in {}: build everything with `cargo build --release`, or put sso, sso-master \
         and sso-server into one folder", .names.join(" and "), .folder.display()
    )]
    ProgramsMissing {
        /// The names of the missing programs.
        names: Vec<&'static str>,
        /// Where they were looked for.
        folder: PathBuf,
    },
    /// Another `sso dev` runs in the folder.
    #[error("another `sso dev` is running in {}", .0.display())]
    Busy(PathBuf),
    /// A folder that must not hold a system: it is none, or others could change what is in it.
    #[error("{} {what}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate that could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The operating system gave no random numbers or no free port.
    #[error("no {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program ended although it should run, or was to do one thing and failed at it.
    #[error("{name} {what}; its log is {}", log.display())]
    Ended {
        /// The program and its number.
        name: String,
        /// How it ended.
        what: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A program that runs but did not become ready in time.
    #[error("{name} is not ready after {seconds} s ({why}); its log is {}", log.display())]
    NotReady {
        /// The program and its number.
        name: String,
        /// The seconds waited.
        seconds: u64,
        /// What its operations listener answered last.
        why: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

impl DevelopmentError {
    /// The last lines of the log of the program that failed; empty where no program did.
    #[must_use]
    pub fn log_tail(&self) -> &str {
        match self {
            Self::Ended { tail, .. } | Self::NotReady { tail, .. } => tail,
            Self::ProgramsMissing { .. }
            | Self::Busy(_)
            | Self::Folder { .. }
            | Self::File { .. }
            | Self::Certificate(_)
            | Self::System { .. } => "",
        }
    }

    /// The log file that the error names; `None` where no program failed.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        match self {
            Self::Ended { log, .. } | Self::NotReady { log, .. } => Some(log),
            Self::ProgramsMissing { .. }
            | Self::Busy(_)
            | Self::Folder { .. }
            | Self::File { .. }
            | Self::Certificate(_)
            | Self::System { .. } => None,
        }
    }

    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
