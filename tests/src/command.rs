//! Runs programs with a timeout and polls conditions.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use orchestrator_contract::{Event, EventBody, Outcome};
use rustix::process::{Pid, Signal, kill_process_group};

/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The output of a command that exited.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code; -1 if a signal ended the command.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// Parses the events that a supervisor printed.
    pub fn events(&self) -> Vec<Event> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not an event: {line}")))
            .collect()
    }

    /// Returns the outcome, if the last event is one.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.events().pop()?.body {
            EventBody::Outcome { outcome } => Some(*outcome),
            _ => None,
        }
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs a command in its own process group and kills the group after `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> CommandOutput {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().expect("a program that starts");
    let group = Pid::from_child(&child);
    let (done, waited) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if waited.recv_timeout(limit).is_err_and(|error| error == RecvTimeoutError::Timeout) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("output");
    drop(done);
    guard.join().expect("the guard");
    output.into()
}

/// Polls `check` until it returns a value.
///
/// # Panics
///
/// Panics after `limit`, with the text of `explain`.
#[track_caller]
pub fn poll<T>(limit: Duration, explain: impl Fn() -> String, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < limit, "timed out after {limit:?}: {}", explain());
        std::thread::sleep(POLL_INTERVAL);
    }
}
