//! Attempt numbers, allocated under a lock and never reused, even after the runs were removed.

use std::fs::File;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Reason, RunName, ServiceName, TaskKey, TaskSpec};

use super::handle::Local;
use super::lock;
use crate::error::Error;
use crate::files;

/// How long to wait for concurrent submissions to the same service; each takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum length of a stored number that is read; a longer one is damaged.
const STORED_MAX_BYTES: u64 = 32;

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
    /// Considers the runs too, here and in the workspace: the stored number may be lost or damaged.
    pub(super) fn highest_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let layout = self.layout(&identity.service);
        let names = files::list_names(&self.runs_folder())?;
        let recorded = names.into_iter().filter_map(|name| self.recorded_attempt(identity, name));
        let highest = recorded.chain(workspace_attempts(&layout, identity)).max();
        Ok(highest.unwrap_or_default().max(stored_attempt(&layout, identity)))
    }

    /// Returns the attempt of a run with this name, if it is one of the task key.
    fn recorded_attempt(&self, identity: &TaskKey, name: String) -> Option<u32> {
        match self.stored_run(&RunName::new(name.clone()).ok()?) {
            Ok(run) => run.filter(|run| run.task.identity() == *identity).map(|run| run.task.attempt),
            // Only the name of a run with a damaged record can be trusted.
            Err(_) => identity.attempt_of(&name).map(|(attempt, _)| attempt),
        }
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
        if stored_attempt(&self.layout, identity) >= attempt {
            return Ok(());
        }
        let path = self.layout.attempts(identity);
        files::make_way(&self.layout.supervisor_dir(), &path)?;
        if let Some(folder) = path.parent() {
            files::create_folder(folder)?;
        }
        files::write(&path, &format!("{attempt}\n"))
    }
}

/// Returns the stored number; 0 if it is missing or damaged. The next submission replaces a damaged one.
fn stored_attempt(layout: &Layout, identity: &TaskKey) -> u32 {
    let text = files::read_small(&layout.attempts(identity), STORED_MAX_BYTES);
    text.and_then(|text| TaskKey::parse_attempt(&text)).unwrap_or_default()
}

/// Returns the attempts whose runs have a folder in the workspace.
fn workspace_attempts(layout: &Layout, identity: &TaskKey) -> impl Iterator<Item = u32> {
    // An unreadable folder ends the run, which says so.
    let names = files::list_names(&layout.runs()).unwrap_or_default();
    names.into_iter().filter_map(|name| {
        let (attempt, run) = identity.attempt_of(&name)?;
        // Names of different keys can collide; an unreadable task counts.
        let task = files::read(&layout.run_dir(&run).task()).ok().flatten();
        let task = task.and_then(|task| TaskSpec::from_json(&task).ok());
        task.is_none_or(|task| task.identity() == *identity).then_some(attempt)
    })
}
