//! Runs setup and verify commands one after another, confined like the agent and without
//! credentials, until one fails.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_contract::outcome::CommandResult;

use crate::failure::Failure;
use crate::process::{Environment, Exit, read_tail};
use crate::program::{ProgramEnd, ProgramOutput, ProgramSpec};
use crate::redact::Redactor;
use crate::sandbox::SandboxSpec;
use crate::site::Site;

/// Bytes of output kept per stream of a command: the tail, where programs print errors.
const OUTPUT_TAIL_BYTES: usize = 16 * 1024;

/// The context that commands run in.
#[derive(Clone, Debug)]
pub struct CommandContext {
    /// Where the commands run.
    pub site: Site,
    /// The environment, without credentials.
    pub environment: Environment,
    /// The sandbox.
    pub sandbox: SandboxSpec,
    pub directory: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandsResult {
    /// One report per command that ran.
    pub reports: Vec<CommandResult>,
    /// Whether all commands ran and succeeded.
    pub passed: bool,
}

impl CommandsResult {
    /// Returns the failed command, its status and its output, for the agent and the outcome.
    #[must_use]
    pub fn failure_text(&self) -> Option<String> {
        let failed = self.reports.last().filter(|_| !self.passed)?;
        let status = failed
            .exit_code
            .map_or_else(|| "was killed".to_owned(), |code| format!("exited with code {code}"));
        Some(format!("`{}` {status}\n{}", failed.command, failed.output))
    }
}

/// Runs the commands within `limit` and kills every process that they left running.
///
/// Calls `on_finished` with the report of each command.
///
/// # Errors
/// Returns an error if a command cannot be started.
pub async fn run_commands(
    commands: &[String],
    context: &CommandContext,
    redactor: &Redactor,
    limit: Duration,
    mut on_finished: impl FnMut(&CommandResult),
) -> Result<CommandsResult, Failure> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut result = CommandsResult { reports: Vec::new(), passed: true };
    for command in commands {
        let report = run_one(command, context, redactor, deadline).await?;
        on_finished(&report);
        result.passed = report.exit_code == Some(0);
        result.reports.push(report);
        if !result.passed {
            break;
        }
    }
    Ok(result)
}

async fn run_one(
    shell_line: &str,
    context: &CommandContext,
    redactor: &Redactor,
    deadline: tokio::time::Instant,
) -> Result<CommandResult, Failure> {
    let CommandContext { site, environment, sandbox, directory } = context;
    let started = Instant::now();
    // Commands are shell lines such as `cd x && cargo test`.
    let arguments = [OsString::from("-c"), OsString::from(shell_line)];
    let spec = ProgramSpec {
        program: Path::new("/bin/sh"),
        arguments: &arguments,
        environment,
        directory,
        sandbox,
        input: false,
    };
    let mut program = site.start(spec).await?;
    let read = |output: Option<ProgramOutput>| {
        let reader = output.and_then(|output| output.into_reader().ok());
        tokio::spawn(read_tail(reader, OUTPUT_TAIL_BYTES))
    };
    let (stdout, stderr) = (read(program.stdout.take()), read(program.stderr.take()));
    let exit = tokio::time::timeout_at(deadline, program.wait()).await;
    let exit = match exit {
        Ok(Ok(ProgramEnd::Exited(exit))) => Some(exit),
        Ok(Ok(ProgramEnd::Lost)) => None,
        Ok(Err(_)) | Err(_) => {
            program.kill().await;
            None
        }
    };
    let remaining = site.kill_all().await;
    // Otherwise it could answer for the next command.
    let exit = exit.filter(|_| remaining.is_empty());
    let mut output = Vec::new();
    for stream in [stdout, stderr] {
        output.extend(
            tokio::time::timeout(Duration::from_secs(5), stream)
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default(),
        );
    }
    let failed = exit != Some(Exit::Code(0));
    let text = String::from_utf8_lossy(&output);
    Ok(CommandResult {
        command: shell_line.to_owned(),
        exit_code: match exit {
            Some(Exit::Code(code)) => Some(i32::from(code)),
            Some(Exit::Signal(_)) | None => None,
        },
        seconds: started.elapsed().as_secs_f64(),
        output: if failed { redactor.redact(&text).into_owned() } else { String::new() },
    })
}
