//! What a process is to the system, and to the one that started it.

use std::{io, time::Duration};

use rustix::{
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
    time::{ClockId, clock_gettime},
};
use serde::Deserialize;

/// Whether this process may do everything on this machine, which none of the programs needs.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that this process acts as.
#[must_use]
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The time that this process had of all processors so far.
#[must_use]
pub fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Section `[process]` of every program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessSettings {
    /// Stop as on SIGTERM when the process that started this one ends, however it ends. For systems
    /// that live as long as a command; a service manager has no use for it.
    pub stop_with_parent: bool,
}

impl ProcessSettings {
    /// Puts the settings into force. Call it before the first thread is made.
    ///
    /// # Errors
    /// The operating system refuses, or the parent has ended already.
    pub fn apply(&self) -> io::Result<()> {
        if !self.stop_with_parent {
            return Ok(());
        }
        let parent = getppid();
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // Between the two calls the parent may have ended, and nobody would tell.
        if getppid() != parent || parent == Some(Pid::INIT) {
            return Err(io::Error::other("the process that started this one has ended"));
        }
        Ok(())
    }
}
