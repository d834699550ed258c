//! Attempt numbers, allocated under a lock and never reused, even after the runs were removed.

use std::fs::File;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Reason, ServiceName, TaskKey};

use super::handle::Local;
use super::lock;
use crate::error::Error;
use crate::files;

/// How long to wait for concurrent submissions to the same service; each takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The exclusive right to submit to a service.
#[derive(Debug)]
pub(super) struct SubmitLock {
    layout: Layout,
    _held: File,
}

impl Local {
    /// Returns the workspace of a service.
    pub(super) fn layout(&self, service: &ServiceName) -> Layout {
        Layout::new(self.root.join("workspaces").join(Layout::name(service)))
    }

    /// Returns the highest attempt number ever allocated for a task key.
    ///
    /// Considers the runs too: the stored number is lost if the workspace was deleted.
    pub(super) fn highest_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let stored = stored_attempt(&self.layout(&identity.service), identity)?;
        let runs = self.stored_runs()?;
        let recorded = runs.iter().filter(|run| run.task.identity() == *identity).map(|run| run.task.attempt);
        Ok(recorded.max().unwrap_or_default().max(stored))
    }

    /// Waits for the exclusive right to submit to a service.
    pub(super) async fn lock_submissions(&self, service: &ServiceName) -> Result<SubmitLock, Error> {
        let layout = self.layout(service);
        files::create_folder(&layout.supervisor_dir())?;
        let path = layout.supervisor_dir().join("attempts.lock");
        let held = lock::open(&path)?;
        let acquire = async {
            loop {
                if lock::try_acquire(&held, &path)? {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LOCK_TIMEOUT, acquire).await.unwrap_or_else(|_| {
            Err(Error::new(
                Reason::WorkspaceBusy,
                format!("timed out waiting for the lock {}", path.display()),
            )
            .with_hint("Stop the dispatcher process that holds the lock, then submit again."))
        })?;
        Ok(SubmitLock { layout, _held: held })
    }
}

impl SubmitLock {
    /// Records that an attempt number is allocated.
    pub(super) fn record_attempt(&self, identity: &TaskKey, attempt: u32) -> Result<(), Error> {
        if stored_attempt(&self.layout, identity)? >= attempt {
            return Ok(());
        }
        let path = self.layout.attempts(identity);
        if let Some(folder) = path.parent() {
            files::create_folder(folder)?;
        }
        files::write(&path, &format!("{attempt}\n"))
    }
}

fn stored_attempt(layout: &Layout, identity: &TaskKey) -> Result<u32, Error> {
    let path = layout.attempts(identity);
    let Some(text) = files::read(&path)? else { return Ok(0) };
    text.trim().parse().map_err(|_| {
        Error::new(Reason::IoError, format!("{} holds no attempt number", path.display()))
            .with_hint("Write the highest attempt number of this task to the file.")
    })
}
