//! Setup and verify commands: run one after another as the agent would run them,
//! without credentials, until one fails.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use orchestrator_contract::outcome::CommandResult;

use crate::process::{Confinement, Environment, Exit, confined_command, kill_descendants, read_tail, spawn};
use crate::redact::Redactor;

/// How much of a command's output is kept: its end, where programs say what went wrong.
const OUTPUT_TAIL_BYTES: usize = 16 * 1024;

/// What commands run in.
#[derive(Clone, Debug)]
pub struct CommandContext {
    /// Our own program, which confines and executes.
    pub supervisor: PathBuf,
    /// The environment, without credentials.
    pub environment: Environment,
    /// What they may touch.
    pub confinement: Confinement,
    /// Where they run.
    pub directory: PathBuf,
}

/// What the commands said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandsResult {
    /// One report a command that ran.
    pub reports: Vec<CommandResult>,
    /// Whether all ran and succeeded.
    pub passed: bool,
}

impl CommandsResult {
    /// What failed, for the agent and the outcome; the first line says which command and how.
    #[must_use]
    pub fn failure_text(&self) -> Option<String> {
        let failed = self.reports.last().filter(|_| !self.passed)?;
        let how = failed
            .exit_code
            .map_or_else(|| "was ended".to_owned(), |code| format!("ended with exit code {code}"));
        Some(format!("`{}` {how}\n{}", failed.command, failed.output))
    }
}

/// Runs the commands within `limit`; everything they started is gone when this returns.
/// `done` is told of each as it ends.
///
/// # Errors
/// A command cannot be started at all.
pub async fn run_commands(
    commands: &[String],
    surroundings: &CommandContext,
    redactor: &Redactor,
    limit: Duration,
    mut done: impl FnMut(&CommandResult),
) -> Result<CommandsResult, crate::process::SpawnError> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut checked = CommandsResult { reports: Vec::new(), passed: true };
    for command in commands {
        let report = run_one(command, surroundings, redactor, deadline).await?;
        done(&report);
        checked.passed = report.exit_code == Some(0);
        checked.reports.push(report);
        if !checked.passed {
            break;
        }
    }
    Ok(checked)
}

async fn run_one(
    line: &str,
    surroundings: &CommandContext,
    redactor: &Redactor,
    deadline: tokio::time::Instant,
) -> Result<CommandResult, crate::process::SpawnError> {
    let CommandContext { supervisor, environment, confinement, directory } = surroundings;
    let started = Instant::now();
    // A check is a line of shell by nature: `cd x && cargo test`.
    let arguments = [OsString::from("-c"), OsString::from(line)];
    let mut command =
        confined_command(supervisor, confinement, Path::new("/bin/sh"), &arguments, environment);
    command.current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let stdout = tokio::spawn(read_tail(child.take_stdout(), OUTPUT_TAIL_BYTES));
    let stderr = tokio::spawn(read_tail(child.take_stderr(), OUTPUT_TAIL_BYTES));
    let exit = tokio::time::timeout_at(deadline, child.wait()).await;
    let exit = match exit {
        Ok(Ok(exit)) => Some(exit),
        Ok(Err(_)) | Err(_) => {
            child.kill().await;
            None
        }
    };
    kill_descendants(&BTreeSet::new()).await;
    let mut output = Vec::new();
    for part in [stdout, stderr] {
        output.extend(
            tokio::time::timeout(Duration::from_secs(5), part)
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default(),
        );
    }
    let failed = exit != Some(Exit::Code(0));
    let text = String::from_utf8_lossy(&output);
    Ok(CommandResult {
        command: line.to_owned(),
        exit_code: match exit {
            Some(Exit::Code(code)) => Some(i32::from(code)),
            Some(Exit::Signal(_)) | None => None,
        },
        seconds: started.elapsed().as_secs_f64(),
        output: if failed { redactor.redact(&text).into_owned() } else { String::new() },
    })
}
