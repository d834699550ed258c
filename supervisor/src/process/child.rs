//! A child process: spawned, signaled as a group, awaited once.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// Children that tokio awaits; [`super::reap_orphans`] does not reap them.
static AWAITED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Locks and returns the awaited children; no child is spawned meanwhile.
pub(super) fn awaited() -> MutexGuard<'static, BTreeSet<u32>> {
    // A panic under the lock leaves the set consistent: every change is a single call.
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a process exited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It exited with this code.
    Code(u8),
    /// This signal terminated it.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            // An exit status has eight bits, see wait(2).
            (Some(code), _) => Self::Code((code & 0xff) as u8),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Code(0xff),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The error of a failed spawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `{program}`")]
pub struct SpawnError {
    /// The program, as given by the caller.
    pub program: String,
    #[source]
    pub source: io::Error,
}

/// A spawned child; dropping it kills its process group.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    pid: Option<u32>,
}

/// Spawns `command` and registers it as awaited.
///
/// # Errors
/// Returns an error if the program cannot be spawned.
pub fn spawn(mut command: tokio::process::Command) -> Result<Child, SpawnError> {
    // Locked during the spawn, so that the reaper never sees an unregistered child.
    let mut awaited = awaited();
    let inner = command.spawn().map_err(|source| SpawnError {
        program: command.as_std().get_program().to_string_lossy().into_owned(),
        source,
    })?;
    let pid = inner.id();
    awaited.extend(pid);
    Ok(Child { inner, pid })
}

impl Child {
    /// Returns the process id, also after the exit.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Takes the child's standard input, if it was piped.
    pub fn take_stdin(&mut self) -> Option<tokio::process::ChildStdin> {
        self.inner.stdin.take()
    }

    /// Takes the child's standard output, if it was piped.
    pub fn take_stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.inner.stdout.take()
    }

    /// Takes the child's standard error, if it was piped.
    pub fn take_stderr(&mut self) -> Option<tokio::process::ChildStderr> {
        self.inner.stderr.take()
    }

    /// Waits for the exit. Can be called again.
    ///
    /// # Errors
    /// Returns an error if the status cannot be read.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        let status = self.inner.wait().await?;
        if let Some(pid) = self.pid {
            awaited().remove(&pid);
        }
        Ok(status.into())
    }

    /// Returns the exit, or `None` if the child is still running.
    ///
    /// # Errors
    /// Returns an error if the status cannot be read.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        let status = self.inner.try_wait()?;
        if let (Some(_), Some(pid)) = (status, self.pid) {
            awaited().remove(&pid);
        }
        Ok(status.map(Exit::from))
    }

    /// Sends `signal` to the child's process group, unless the child was reaped already.
    pub fn signal_group(&self, signal: Signal) {
        // The process id can be reused after the child was reaped.
        let pid = self.inner.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Fails only if the group has exited already.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Kills the process group and reaps the child, within 5 seconds.
    pub async fn kill(&mut self) {
        self.signal_group(Signal::KILL);
        // A killed process can hang in the kernel, such as on a dead network file system.
        drop(tokio::time::timeout(Duration::from_secs(5), self.wait()).await);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal_group(Signal::KILL);
        if let Some(pid) = self.pid {
            awaited().remove(&pid);
        }
    }
}
