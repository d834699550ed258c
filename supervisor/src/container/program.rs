//! A program that runs in a container.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::watch;

use super::connection::Connection;
use super::message::{EndedProgram, kind};

/// Running program; dropping it kills its process group.
#[derive(Debug)]
pub struct RunningProgram {
    pub stdin: Option<UnixStream>,
    pub stdout: Option<UnixStream>,
    pub stderr: Option<UnixStream>,
    pub(super) connection: Arc<Connection>,
    pub(super) id: u32,
    pub(super) end: watch::Receiver<Option<EndedProgram>>,
}

impl RunningProgram {
    /// Waits for the end. Can be called again.
    pub async fn wait(&mut self) -> EndedProgram {
        let ended = self.end.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| *ended).unwrap_or(EndedProgram::Lost)
    }

    /// Sends `signal` to the program's process group, unless the program exited already.
    pub fn signal_group(&self, signal: Signal) {
        self.handle().signal_group(signal);
    }

    /// Returns a handle that can signal the program.
    #[must_use]
    pub fn handle(&self) -> ProgramHandle {
        ProgramHandle { connection: Arc::clone(&self.connection), id: self.id, end: self.end.clone() }
    }
}

/// Handle of a program that runs in a container.
#[derive(Clone, Debug)]
pub struct ProgramHandle {
    connection: Arc<Connection>,
    id: u32,
    end: watch::Receiver<Option<EndedProgram>>,
}

impl ProgramHandle {
    /// Sends `signal` to the program's process group, unless the program exited already.
    pub fn signal_group(&self, signal: Signal) {
        if self.end.borrow().is_none() {
            // Without a connection the program is lost, which `wait` returns.
            drop(self.connection.send(self.id, kind::SIGNAL, &signal.as_raw().to_le_bytes()));
        }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        self.signal_group(Signal::KILL);
    }
}
