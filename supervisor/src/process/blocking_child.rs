//! A child process of code outside of an async runtime.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::child::{SpawnError, awaited};

/// How long to wait for a killed child: one that hangs in the kernel does not exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often to ask for the exit of a killed child.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A spawned child in a process group of its own; dropping it kills the group and reaps the child.
#[derive(Debug)]
pub struct BlockingChild {
    inner: std::process::Child,
}

/// Running children of this module. Each one works for a thread of this process, which kills it.
static BLOCKING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Locks and returns the children of this module.
pub(super) fn blocking_children() -> MutexGuard<'static, BTreeSet<u32>> {
    // A panic under the lock leaves the set consistent: every change is a single call.
    BLOCKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spawns `command` in a new process group and registers it as awaited.
///
/// # Errors
/// Returns an error if the program cannot be spawned.
pub fn spawn_blocking(mut command: std::process::Command) -> Result<BlockingChild, SpawnError> {
    command.process_group(0);
    // Locked during the spawn, so that the reaper never sees an unregistered child.
    let mut awaited = awaited();
    let inner = command.spawn().map_err(|source| SpawnError {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    awaited.insert(inner.id());
    blocking_children().insert(inner.id());
    Ok(BlockingChild { inner })
}

impl BlockingChild {
    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }
}

impl Drop for BlockingChild {
    fn drop(&mut self) {
        // The child is not reaped yet, so its process id is still its own.
        if let Some(pid) = i32::try_from(self.inner.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let started = Instant::now();
        while matches!(self.inner.try_wait(), Ok(None)) && started.elapsed() < KILL_TIMEOUT {
            std::thread::park_timeout(POLL_INTERVAL);
        }
        blocking_children().remove(&self.inner.id());
        awaited().remove(&self.inner.id());
    }
}
