//! Processes below a guest: started, signaled, reaped, killed.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process_group, wait, waitid,
};

use super::connection::lock;
use super::message::Exited;
use crate::process::{kill_descendants_once, oom_kill_count};

/// How long killed processes may take to exit.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often the process table is read meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Receives the exits of programs; it must not block for long.
pub(super) type Report = Arc<dyn Fn(u32, Exited) + Send + Sync>;

/// What a started process is.
pub(super) enum Role {
    /// A program, with its id and where its exit is reported.
    Program { id: u32, report: Report },
    /// A guest of files.
    Files,
}

struct Child {
    role: Role,
    kills_before: Option<u64>,
    /// Standard input: the thread that copies it waits for the socket.
    input: Option<UnixStream>,
}

/// What to kill.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Victims {
    Everything,
    /// Everything but guests of files.
    Programs,
    /// What no started process has in its tree.
    Orphans,
}

#[derive(Default)]
struct State {
    running: HashMap<u32, Child>,
    /// Which connection may start processes.
    epoch: u64,
}

/// Processes below this guest.
#[derive(Default)]
pub(super) struct Children {
    state: Mutex<State>,
    started: Condvar,
}

impl Children {
    /// Allows a new connection to start processes; returns its number.
    pub(super) fn new_epoch(&self) -> u64 {
        let mut state = lock(&self.state);
        state.epoch += 1;
        state.epoch
    }

    /// Spawns a process for a connection.
    pub(super) fn spawn(
        &self,
        epoch: u64,
        mut command: std::process::Command,
        role: Role,
        input: Option<UnixStream>,
    ) -> io::Result<std::process::Child> {
        // Locked meanwhile, so that the reaper never sees an unregistered child, nor one of a failed spawn.
        let mut state = lock(&self.state);
        if state.epoch != epoch {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let kills_before = oom_kill_count();
        let child = command.spawn()?;
        state.running.insert(child.id(), Child { role, kills_before, input });
        drop(state);
        self.started.notify_all();
        Ok(child)
    }

    /// Signals the process group of a program that still runs.
    pub(super) fn signal(&self, program: u32, signal: Signal) {
        let state = lock(&self.state);
        let of_program = |child: &Child| matches!(child.role, Role::Program { id, .. } if id == program);
        let pid = state.running.iter().find(|(_, child)| of_program(child)).map(|(pid, _)| *pid);
        // Not reaped while the lock is held, so the number is still its own.
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Kills processes and waits for their exit; returns those that remain.
    pub(super) fn kill(&self, victims: Victims) -> Vec<u32> {
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            let state = lock(&self.state);
            let spared: BTreeSet<u32> = match victims {
                Victims::Everything => BTreeSet::new(),
                Victims::Programs => {
                    let files = |(_, child): &(&u32, &Child)| matches!(child.role, Role::Files);
                    state.running.iter().filter(files).map(|(pid, _)| *pid).collect()
                }
                Victims::Orphans => state.running.keys().copied().collect(),
            };
            let running = kill_descendants_once(&spared);
            drop(state);
            if running.is_empty() || Instant::now() >= deadline {
                return running;
            }
            std::thread::park_timeout(POLL_INTERVAL);
        }
    }

    /// Kills everything of a connection that ended.
    pub(super) fn end_epoch(&self) {
        lock(&self.state).epoch += 1;
        self.kill(Victims::Everything);
    }

    /// Reaps every child and reports the exits of programs; does not return.
    pub(super) fn reap(&self) {
        loop {
            // Only looks: the number of a process that is not reaped yet is not given to another one.
            let seen = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let state = lock(&self.state);
            if seen.is_err_and(|error| error == rustix::io::Errno::CHILD) && state.running.is_empty() {
                // Without a child there are no descendants either.
                drop(self.started.wait(state).unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            self.reap_exited(state);
        }
    }

    fn reap_exited(&self, mut state: std::sync::MutexGuard<'_, State>) {
        let mut exits = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let child =
                u32::try_from(pid.as_raw_nonzero().get()).ok().and_then(|pid| state.running.remove(&pid));
            exits.extend(child.map(|child| (child, status)));
        }
        drop(state);
        for (child, status) in exits {
            if let Some(input) = child.input {
                // Wakes the thread that copies it.
                drop(input.shutdown(Shutdown::Both));
            }
            if let Role::Program { id, report } = child.role {
                let out_of_memory = oom_kill_count() > child.kills_before;
                report(id, exited(status, out_of_memory));
            }
        }
    }
}

fn exited(status: WaitStatus, out_of_memory: bool) -> Exited {
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    Exited { code, signal: status.terminating_signal(), out_of_memory }
}
