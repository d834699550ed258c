//! One child and its life: started, signalled as a group, awaited once.

use std::collections::BTreeSet;
use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// Children whose status somebody awaits; the reaper of strangers leaves them alone.
static AWAITED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// The children that somebody awaits, locked against starts.
pub(super) fn awaited() -> MutexGuard<'static, BTreeSet<u32>> {
    // A panic while the set is held leaves it consistent: every change is one call.
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            // wait(2) gives eight bits.
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

/// A program that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `{program}`")]
pub struct SpawnError {
    /// The program as named.
    pub program: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// A started child.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    pid: Option<u32>,
}

/// Starts `command` and registers it as awaited.
///
/// # Errors
/// The program cannot be started.
pub fn spawn(mut command: tokio::process::Command) -> Result<Child, SpawnError> {
    // Held across the start, so that the reaper never sees a child that is not registered yet.
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
    /// The process id; the same for the whole life of this value.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The child's standard input, once, if it was piped.
    pub fn take_stdin(&mut self) -> Option<tokio::process::ChildStdin> {
        self.inner.stdin.take()
    }

    /// The child's standard output, once, if it was piped.
    pub fn take_stdout(&mut self) -> Option<tokio::process::ChildStdout> {
        self.inner.stdout.take()
    }

    /// The child's standard error, once, if it was piped.
    pub fn take_stderr(&mut self) -> Option<tokio::process::ChildStderr> {
        self.inner.stderr.take()
    }

    /// Waits for the end. Can be asked again.
    ///
    /// # Errors
    /// The system cannot tell the status.
    pub async fn wait(&mut self) -> io::Result<Exit> {
        let status = self.inner.wait().await?;
        if let Some(pid) = self.pid {
            awaited().remove(&pid);
        }
        Ok(status.into())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system cannot tell the status.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        let status = self.inner.try_wait()?;
        if let (Some(_), Some(pid)) = (status, self.pid) {
            awaited().remove(&pid);
        }
        Ok(status.map(Exit::from))
    }

    /// Sends `signal` to the child's process group, while the child is not yet awaited.
    pub fn signal_group(&self, signal: Signal) {
        // After the status was collected the number may belong to somebody else.
        let alive = self.inner.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = alive {
            // A group that is already gone needs no signal.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Kills the group and collects the child, in bounded time.
    pub async fn kill(&mut self) {
        self.signal_group(Signal::KILL);
        // A killed process can hang in the kernel (a dead network file system); it is then left.
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
