//! Attempt numbers: given out under a lock, never twice, not even after the
//! records of a run are gone.

use std::fs::File;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Identity, Reason, ServiceName};

use super::{Local, lock};
use crate::files;
use crate::problem::Problem;

/// How long to wait for others that submit to the same service: each needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The right to submit to a service: nobody else has it at the same time.
#[derive(Debug)]
pub(super) struct Gate {
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
    pub(super) fn highest_attempt(&self, identity: &Identity) -> Result<u32, Problem> {
        let mark = mark(&self.layout(&identity.service), identity)?;
        let runs = self.stored_runs()?;
        let recorded = runs.iter().filter(|run| run.task.identity() == *identity).map(|run| run.task.attempt);
        Ok(recorded.max().unwrap_or_default().max(mark))
    }

    /// Waits for the right to submit to a service.
    pub(super) async fn gate(&self, service: &ServiceName) -> Result<Gate, Problem> {
        let layout = self.layout(service);
        files::make_folder(&layout.control())?;
        let path = layout.control().join("attempts.lock");
        let held = lock::open(&path)?;
        let take = async {
            loop {
                if lock::try_take(&held, &path)? {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, take).await.unwrap_or_else(|_| {
            Err(Problem::new(Reason::WorkspaceBusy, format!("others keep {} locked", path.display()))
                .next("End the dispatcher that hangs there, then submit again."))
        })?;
        Ok(Gate { layout, _held: held })
    }
}

impl Gate {
    /// Writes down that an attempt's number is given out: nobody gets it again.
    pub(super) fn give_out(&self, identity: &Identity, attempt: u32) -> Result<(), Problem> {
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

fn mark(layout: &Layout, identity: &Identity) -> Result<u32, Problem> {
    let path = layout.attempts(identity);
    let Some(text) = files::read(&path)? else { return Ok(0) };
    text.trim().parse().map_err(|_| {
        Problem::new(Reason::InputOutput, format!("{} holds no attempt number", path.display()))
            .next("Write the highest number that this task's runs have had into it.")
    })
}
