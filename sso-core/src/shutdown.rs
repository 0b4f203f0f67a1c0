//! Stopping in two stages: first no new work, then no work at all.

use std::{io, time::Duration};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two stages, for every task to watch. Clones share them.
#[derive(Clone, Debug)]
pub struct Shutdown {
    draining: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT: the first one begins draining; after `grace`, or at the second
    /// one, everything stops. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The signals cannot be listened for.
    pub fn install(grace: Duration) -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::manual();
        let stages = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = any(&mut terminate, &mut interrupt) => {}
                () = stages.draining.cancelled() => {}
            }
            tracing::info!(grace_seconds = grace.as_secs(), "draining");
            notify_stopping();
            stages.draining.cancel();
            tokio::select! {
                () = any(&mut terminate, &mut interrupt) => {}
                () = tokio::time::sleep(grace) => {}
                () = stages.stop.cancelled() => {}
            }
            stages.stop.cancel();
        });
        Ok(shutdown)
    }

    /// Two stages that only [`Shutdown::drain`] and [`Shutdown::stop_now`] begin.
    #[must_use]
    pub fn manual() -> Self {
        Self { draining: CancellationToken::new(), stop: CancellationToken::new() }
    }

    /// Cancelled when no new work is to be taken; work begun goes on.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Cancelled when work begun is to be given up, too.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Begins the first stage.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Begins both stages.
    pub fn stop_now(&self) {
        self.draining.cancel();
        self.stop.cancel();
    }
}

/// Tells the service manager, when there is one, that the program serves.
pub fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Tells the service manager, when there is one, that the program is about to end.
pub fn notify_stopping() {
    notify(NotifyState::Stopping);
}

/// Gives the service manager, when there is one, a line to show about the program.
pub fn notify_status(status: &str) {
    notify(NotifyState::Status(status));
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

async fn any(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_stages_follow_each_other() {
        let shutdown = Shutdown::install(Duration::from_millis(20)).unwrap();
        assert!(!shutdown.draining().is_cancelled());
        shutdown.clone().drain();
        assert!(shutdown.draining().is_cancelled());
        assert!(!shutdown.stop().is_cancelled());
        shutdown.stop().cancelled().await;
    }

    #[tokio::test]
    async fn stopping_at_once_drains_as_well() {
        let shutdown = Shutdown::install(Duration::from_secs(3600)).unwrap();
        shutdown.stop_now();
        assert!(shutdown.draining().is_cancelled() && shutdown.stop().is_cancelled());
    }
}
