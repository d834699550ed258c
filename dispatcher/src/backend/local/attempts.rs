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
pub struct Gate {
    layout: Layout,
    _held: File,
}

impl Local {
    /// The workspace of a service.
    #[must_use]
    pub fn workspace(&self, service: &ServiceName) -> Layout {
        Layout::new(self.root.join("workspaces").join(Layout::name(service)))
    }

    /// The highest attempt number ever given out to an identity.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub fn mark(&self, identity: &Identity) -> Result<u32, Problem> {
        mark(&self.workspace(&identity.service), identity)
    }

    /// Waits for the right to submit to a service.
    ///
    /// # Errors
    /// The workspace cannot be written, or others hold the right for too long.
    pub async fn gate(&self, service: &ServiceName) -> Result<Gate, Problem> {
        let layout = self.workspace(service);
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
    /// The next attempt's number, above `known` and the mark, which nobody gets again.
    ///
    /// # Errors
    /// The mark cannot be read or written.
    pub fn next(&self, identity: &Identity, known: u32) -> Result<u32, Problem> {
        let path = self.layout.attempts(identity);
        if let Some(folder) = path.parent() {
            files::make_folder(folder)?;
        }
        // A workspace that was thrown away took its marks along; the records may remember.
        let next = mark(&self.layout, identity)?.max(known) + 1;
        files::write(&path, &format!("{next}\n"))?;
        Ok(next)
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
