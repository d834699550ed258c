//! One conversation with the agent's program, from its start until nothing of it is alive.
//!
//! The program's standard input stays open until it has a result, so that
//! messages can be sent; its standard output is read on a thread; its end is
//! judged elsewhere (`end`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::exit::{AgentExit, classify_exit};
use super::gateway::Gateway;
use super::reader::{IdleTimer, OutputStats, read_output};
use super::stream::{AgentResult, CliMessage};
use super::watchdog::EXIT_TIMEOUT;
use crate::failure::Failure;
use crate::process::{
    Confinement, Environment, confined_command, kill_descendants, kill_orphans, oom_kill_count, read_tail,
    spawn,
};
use crate::redact::Redactor;
use crate::run::SessionOutcome;

/// What is asked of a conversation that runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionControl {
    /// End by yourself.
    Stop,
    /// Be gone.
    Kill,
}

/// Whether other conversations are held meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionScope {
    /// There are none: when it ends, nothing that was started may live.
    Exclusive,
    /// There may be: when it ends, what they started is left alone.
    Shared,
}

/// Everything that one start of the program needs.
#[derive(Debug)]
pub struct SessionCommand {
    /// Our own program, which confines and executes.
    pub supervisor: PathBuf,
    /// The agent's program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: Environment,
    /// What it may touch.
    pub confinement: Confinement,
    /// Where it works.
    pub directory: PathBuf,
    /// What it is told, one JSON message a line.
    pub message: String,
    /// Where what it prints is kept.
    pub transcript: PathBuf,
    /// Its way to the model, open as long as it runs.
    pub gateway: Option<Gateway>,
    /// Whether other conversations are held meanwhile.
    pub company: SessionScope,
}

/// How a conversation went.
#[derive(Debug)]
pub struct SessionExit {
    /// What its end means.
    pub end: SessionOutcome,
    /// Its last result.
    pub result: Option<AgentResult>,
    /// What was noticed about its output.
    pub drained: OutputStats,
    /// Processes that could not be ended.
    pub survivors: Vec<u32>,
}

/// How much of standard error is kept: its end.
const STDERR_TAIL_BYTES: usize = 16 * 1024;

/// How long the rest of the output is read after everything was killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

impl SessionCommand {
    /// Runs the program to its end. What it says goes to `said` as it comes.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn run(
        self,
        redactor: &Redactor,
        pulse: IdleTimer,
        said: mpsc::Sender<CliMessage>,
        mut controls: mpsc::Receiver<SessionControl>,
    ) -> Result<SessionExit, Failure> {
        let Self {
            supervisor,
            program,
            arguments,
            environment,
            confinement,
            directory,
            message,
            transcript,
            gateway: _open,
            company,
        } = self;
        let internal = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(orchestrator_contract::Reason::InternalError, format!("cannot {what}: {error}"))
        };
        let kills_before = oom_kill_count();
        let mut command = confined_command(&supervisor, &confinement, &program, &arguments, &environment);
        command.current_dir(&directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command)
            .map_err(|error| internal("start the agent", &crate::failure::error_chain(&error)))?;
        let mut stdin = child.take_stdin();
        let stdout =
            child.take_stdout().ok_or_else(|| internal("read the agent's output", &"it has none"))?;
        let stdout = stdout.into_owned_fd().map_err(|error| internal("read the agent's output", &error))?;
        let stderr = child.take_stderr();
        let (heard, mut hear) = mpsc::channel(1024);
        pulse.reset();
        let reader = read_output(stdout, &transcript, redactor, pulse.clone(), heard)
            .map_err(|error| crate::failure::Failure::io(&transcript, &error))?;
        let stderr = tokio::spawn(read_tail(stderr, STDERR_TAIL_BYTES));

        if let Some(stdin) = &mut stdin {
            // A program that does not read its input has other trouble, which its end tells.
            drop(tokio::time::timeout(Duration::from_secs(60), stdin.write_all(message.as_bytes())).await);
        }
        let mut last_result: Option<AgentResult> = None;
        let mut killed_after_result = false;
        let mut stopping = false;
        let exit = loop {
            let linger = EXIT_TIMEOUT.saturating_sub(pulse.elapsed());
            tokio::select! {
                exit = child.wait() => break exit.map_err(|error| internal("collect the agent", &error))?,
                Some(what) = hear.recv() => {
                    if let CliMessage::Result(result) = &what {
                        last_result = Some((**result).clone());
                        // Closing its input lets it leave; background work it waits for may still bring a result.
                        drop(stdin.take());
                    }
                    // The loop is gone only when the process ends.
                    drop(said.send(what).await);
                }
                Some(control) = controls.recv() => match control {
                    SessionControl::Stop => {
                        stopping = true;
                        child.signal_group(Signal::TERM);
                    }
                    SessionControl::Kill => child.signal_group(Signal::KILL),
                },
                () = tokio::time::sleep(linger), if last_result.is_some() && !stopping => {
                    if pulse.elapsed() >= EXIT_TIMEOUT {
                        killed_after_result = true;
                        child.signal_group(Signal::KILL);
                    }
                }
            }
        };
        // What still holds the pipes is killed first; then the end of the output is near.
        let survivors = match company {
            SessionScope::Exclusive => kill_descendants(&BTreeSet::new()).await,
            SessionScope::Shared => kill_orphans().await,
        };
        let reading = tokio::task::spawn_blocking(move || reader.join().unwrap_or_default());
        tokio::pin!(reading);
        let drained = loop {
            tokio::select! {
                drained = &mut reading => break drained.unwrap_or_default(),
                Some(what) = hear.recv() => {
                    if let CliMessage::Result(result) = &what {
                        last_result = Some((**result).clone());
                    }
                    drop(said.send(what).await);
                }
                () = tokio::time::sleep(DRAIN_TIMEOUT) => break OutputStats::default(),
            }
        };
        while let Ok(what) = hear.try_recv() {
            if let CliMessage::Result(result) = &what {
                last_result = Some((**result).clone());
            }
            drop(said.send(what).await);
        }
        let stderr =
            tokio::time::timeout(DRAIN_TIMEOUT, stderr).await.ok().and_then(Result::ok).unwrap_or_default();
        let stderr = redactor.redact(&String::from_utf8_lossy(&stderr)).into_owned();
        let kills_after = oom_kill_count();
        let ended = AgentExit {
            exit,
            killed_after_result,
            result: last_result.as_ref(),
            stderr: &stderr,
            out_of_memory: kills_after > kills_before,
        };
        Ok(SessionExit { end: classify_exit(ended), result: last_result, drained, survivors })
    }
}

/// Whether the recorded conversation can be resumed: its file is in a home of the agent.
///
/// The CLI keeps it as `projects/*/{session}.jsonl` in its configuration folder.
#[must_use]
pub fn find_session(home: &Path, session: &str) -> Option<PathBuf> {
    let projects = std::fs::read_dir(home.join(".claude/projects")).ok()?;
    let name = format!("{session}.jsonl");
    projects
        .flatten()
        .map(|entry| entry.path().join(&name))
        .find(|path| std::fs::symlink_metadata(path).is_ok_and(|data| data.is_file() && data.len() > 0))
}
