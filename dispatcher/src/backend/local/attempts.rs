//! Attempt numbers: given out under a lock, never twice, not even after the
//! records of a run are gone.

use std::fs::File;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Reason, ServiceName, TaskKey};

use super::{Local, lock};
use crate::error::Error;
use crate::files;

/// How long to wait for others that submit to the same service: each needs milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The right to submit to a service: nobody else has it at the same time.
#[derive(Debug)]
pub(super) struct SubmitLock {
    layout: Layout,
    _held: File,
}

impl Local {
    /// The workspace of a service.
    pub(super) fn layout(&self, service: &ServiceName) -> Layout {
        Layout::new(self.root.join("workspaces").join(Layout::name(service)))
    }

    /// The highest attempt number ever given out to an identity, as far as mark and records tell:
    /// a workspace that was thrown away took its marks along, but the records may remember.
    pub(super) fn highest_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let mark = mark(&self.layout(&identity.service), identity)?;
        let runs = self.stored_runs()?;
        let recorded = runs.iter().filter(|run| run.task.identity() == *identity).map(|run| run.task.attempt);
        Ok(recorded.max().unwrap_or_default().max(mark))
    }

    /// Waits for the right to submit to a service.
    pub(super) async fn lock_submissions(&self, service: &ServiceName) -> Result<SubmitLock, Error> {
        let layout = self.layout(service);
        files::make_folder(&layout.supervisor_dir())?;
        let path = layout.supervisor_dir().join("attempts.lock");
        let held = lock::open(&path)?;
        let take = async {
            loop {
                if lock::try_take(&held, &path)? {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LOCK_TIMEOUT, take).await.unwrap_or_else(|_| {
            Err(Error::new(Reason::WorkspaceBusy, format!("others keep {} locked", path.display()))
                .with_hint("End the dispatcher that hangs there, then submit again."))
        })?;
        Ok(SubmitLock { layout, _held: held })
    }
}

impl SubmitLock {
    /// Writes down that an attempt's number is given out: nobody gets it again.
    pub(super) fn record_attempt(&self, identity: &TaskKey, attempt: u32) -> Result<(), Error> {
        if mark(&self.layout, identity)? >= attempt {
            return Ok(());
        }
        let path = self.layout.attempts(identity);
        if let Some(folder) = path.parent() {
            files::make_folder(folder)?;
        }
        files::write(&path, &format!("{attempt}\n"))
    }
}

fn mark(layout: &Layout, identity: &TaskKey) -> Result<u32, Error> {
    let path = layout.attempts(identity);
    let Some(text) = files::read(&path)? else { return Ok(0) };
    text.trim().parse().map_err(|_| {
        Error::new(Reason::IoError, format!("{} holds no attempt number", path.display()))
            .with_hint("Write the highest number that this task's runs have had into it.")
    })
}
