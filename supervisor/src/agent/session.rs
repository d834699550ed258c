//! Runs one session of the agent CLI, from its spawn until all of its processes have exited.
//!
//! The CLI's standard input stays open until it prints a result, so that messages
//! can be sent. Its standard output is read on a thread. [`classify_exit`] decides
//! what its exit means.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::exit::{AgentExit, UsageLimit, classify_exit, reached_usage_limit, refused_conversation};
use super::gateway::Gateway;
use super::reader::{IdleTimer, OutputStats, read_output};
use super::session_setup::SessionSetup;
use super::stream::{AgentResult, CliMessage};
use super::watchdog::EXIT_TIMEOUT;
use crate::failure::Failure;
use crate::mcp::relay::RelayGrant;
use crate::process::{Environment, read_tail};
use crate::program::{Program, ProgramEnd, ProgramInput, ProgramOutput, ProgramSpec};
use crate::redact::Redactor;
use crate::run::SessionOutcome;
use crate::sandbox::SandboxSpec;

/// A command to a running session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionControl {
    /// Terminate the CLI.
    Stop,
    /// Kill the CLI.
    Kill,
}

/// Whether other sessions run concurrently.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionScope {
    /// No other session runs: all remaining descendants are killed at the end.
    Exclusive,
    /// Other sessions may run: only orphans are killed at the end.
    Shared,
}

/// The parameters of one session.
#[derive(Debug)]
pub struct SessionCommand {
    /// Where it runs, and what has to be there before.
    pub setup: SessionSetup,
    /// The agent CLI.
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Environment,
    /// The sandbox.
    pub sandbox: SandboxSpec,
    pub directory: PathBuf,
    /// The prompt, as one JSON message per line.
    pub message: String,
    /// The file that the transcript is appended to.
    pub transcript: PathBuf,
    /// The proxy to the model API, open while the session runs.
    pub gateway: Option<Gateway>,
    /// Whether other sessions run concurrently.
    pub company: SessionScope,
    /// The admission to the MCP servers, revoked when the session has ended.
    pub relay: Option<RelayGrant>,
}

/// How a session ended.
#[derive(Debug)]
pub struct SessionExit {
    /// The verdict or failure.
    pub end: SessionOutcome,
    pub result: Option<AgentResult>,
    /// Statistics about the output.
    pub drained: OutputStats,
    /// Processes that could not be killed.
    pub survivors: Vec<String>,
    /// Why a retry cannot continue the session.
    pub not_kept: Option<String>,
    /// Why the model API refuses to continue its conversation.
    pub refused: Option<String>,
    /// The usage limit of the model that ended it.
    pub usage_limit: Option<UsageLimit>,
}

/// Bytes of standard error kept: the tail.
const STDERR_TAIL_BYTES: usize = 16 * 1024;

/// How long to wait for the rest of the output after everything was killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the CLI may take to read the prompt.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(60);

struct RunningCli {
    program: Program,
    stdin: Option<ProgramInput>,
    stderr: tokio::task::JoinHandle<Vec<u8>>,
    reader: std::thread::JoinHandle<OutputStats>,
    messages: mpsc::Receiver<CliMessage>,
}

impl SessionCommand {
    /// Runs the CLI until it exits, and sends its messages to `message_tx`.
    ///
    /// # Errors
    /// Returns an error if the CLI cannot be spawned or its output cannot be read.
    pub async fn run(
        self,
        redactor: &Redactor,
        idle_timer: IdleTimer,
        message_tx: mpsc::Sender<CliMessage>,
        mut controls: mpsc::Receiver<SessionControl>,
    ) -> Result<SessionExit, Failure> {
        self.setup.prepare().await?;
        let RunningCli { mut program, mut stdin, stderr, reader, messages } =
            self.start_cli(redactor, &idle_timer).await?;
        if let Some(stdin) = &mut stdin {
            // If the CLI does not read its input, its exit says why.
            drop(tokio::time::timeout(PROMPT_TIMEOUT, stdin.write_all(self.message.as_bytes())).await);
        }
        let mut forwarder = Forwarder { messages, message_tx, last_result: None };
        let (exit, killed_after_result) =
            wait_for_exit(&mut program, &mut stdin, &mut forwarder, &mut controls, &idle_timer).await?;
        // Kills every process that still holds the pipes, so that the output ends.
        let survivors = match self.company {
            SessionScope::Exclusive => self.setup.site().kill_all().await,
            SessionScope::Shared => self.setup.site().kill_orphans().await,
        };
        drop(self.relay);
        let not_kept = self.setup.store_session().await;
        let drained = forwarder.drain(reader).await;
        let stderr =
            tokio::time::timeout(DRAIN_TIMEOUT, stderr).await.ok().and_then(Result::ok).unwrap_or_default();
        let stderr = redactor.redact(&String::from_utf8_lossy(&stderr)).into_owned();
        let result = forwarder.last_result;
        let spent = self.gateway.as_ref().map(Gateway::spent).unwrap_or_default();
        let agent_exit = AgentExit {
            exit,
            killed_after_result,
            result: result.as_ref(),
            stderr: &stderr,
            out_of_memory: program.out_of_memory(),
            spent: &spent,
        };
        let end = classify_exit(agent_exit);
        let refused = refused_conversation(&end, &spent);
        let usage_limit = reached_usage_limit(&end, &spent);
        Ok(SessionExit { end, result, drained, survivors, not_kept, refused, usage_limit })
    }

    async fn start_cli(&self, redactor: &Redactor, idle_timer: &IdleTimer) -> Result<RunningCli, Failure> {
        let spec = ProgramSpec {
            program: &self.program,
            arguments: &self.arguments,
            environment: &self.environment,
            directory: &self.directory,
            sandbox: &self.sandbox,
            input: true,
        };
        let mut program = self.setup.site().start(spec).await?;
        let stdin = program.input.take();
        let unreadable = |error: &dyn std::fmt::Display| internal("read the agent's output", error);
        let stdout = program.stdout.take().ok_or_else(|| unreadable(&"no stdout pipe"))?;
        let stdout = stdout.into_fd().map_err(|error| unreadable(&error))?;
        let stderr = program.stderr.take().map(ProgramOutput::into_reader).transpose();
        let stderr = stderr.map_err(|error| unreadable(&error))?;
        let (parsed_tx, messages) = mpsc::channel(1024);
        idle_timer.reset();
        let reader = read_output(stdout, &self.transcript, redactor, idle_timer.clone(), parsed_tx)
            .map_err(|error| crate::failure::Failure::io(&self.transcript, &error))?;
        let stderr = tokio::spawn(read_tail(stderr, STDERR_TAIL_BYTES));
        Ok(RunningCli { program, stdin, stderr, reader, messages })
    }
}

/// Waits until the CLI exits, forwarding its messages and handling `controls`.
///
/// Returns its exit, and whether it was killed because it did not exit after its result.
async fn wait_for_exit(
    program: &mut Program,
    stdin: &mut Option<ProgramInput>,
    forwarder: &mut Forwarder,
    controls: &mut mpsc::Receiver<SessionControl>,
    idle_timer: &IdleTimer,
) -> Result<(ProgramEnd, bool), Failure> {
    let mut killed_after_result = false;
    let mut stopping = false;
    let exit = loop {
        let remaining = EXIT_TIMEOUT.saturating_sub(idle_timer.elapsed());
        tokio::select! {
            exit = program.wait() => break exit.map_err(|error| internal("reap the agent", &error))?,
            Some(message) = forwarder.messages.recv() => {
                if forwarder.record(&message) {
                    // Closing its input lets the CLI exit. Background work may still produce another result.
                    drop(stdin.take());
                }
                forwarder.send(message).await;
            }
            Some(control) = controls.recv() => match control {
                SessionControl::Stop => {
                    stopping = true;
                    program.signal_group(Signal::TERM);
                }
                SessionControl::Kill => program.signal_group(Signal::KILL),
            },
            () = tokio::time::sleep(remaining), if forwarder.last_result.is_some() && !stopping => {
                if idle_timer.elapsed() >= EXIT_TIMEOUT {
                    killed_after_result = true;
                    program.signal_group(Signal::KILL);
                }
            }
        }
    };
    Ok((exit, killed_after_result))
}

fn internal(action: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(orchestrator_contract::Reason::InternalError, format!("cannot {action}: {error}"))
}

/// Forwards the CLI's messages and keeps the last result.
struct Forwarder {
    messages: mpsc::Receiver<CliMessage>,
    message_tx: mpsc::Sender<CliMessage>,
    last_result: Option<AgentResult>,
}

impl Forwarder {
    /// Keeps the message if it is a result; returns whether it is.
    fn record(&mut self, message: &CliMessage) -> bool {
        let CliMessage::Result(result) = message else { return false };
        self.last_result = Some((**result).clone());
        true
    }

    async fn send(&self, message: CliMessage) {
        // The receiver is dropped only at the end of the run, when messages no longer matter.
        drop(self.message_tx.send(message).await);
    }

    /// Forwards the rest of the output until the reader ends, or until it stalls.
    async fn drain(&mut self, reader: std::thread::JoinHandle<OutputStats>) -> OutputStats {
        let reading = tokio::task::spawn_blocking(move || reader.join().unwrap_or_default());
        tokio::pin!(reading);
        let stats = loop {
            tokio::select! {
                stats = &mut reading => break stats.unwrap_or_default(),
                Some(message) = self.messages.recv() => {
                    self.record(&message);
                    self.send(message).await;
                }
                () = tokio::time::sleep(DRAIN_TIMEOUT) => break OutputStats::default(),
            }
        };
        while let Ok(message) = self.messages.try_recv() {
            self.record(&message);
            self.send(message).await;
        }
        stats
    }
}
