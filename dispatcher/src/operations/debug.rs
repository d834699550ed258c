//! The `debug` command: a run in the foreground, in a container.

use std::process::ExitStatus;

use orchestrator_contract::Reason;
use tokio::signal::unix::{SignalKind, signal};

use super::dispatcher::Dispatcher;
use crate::backend::docker::{CommandLine, DebugOptions, DebugRun, Docker};
use crate::error::Error;
use crate::process;
use crate::task::request::Request;

impl Dispatcher {
    /// Prepares a debug run in a container; returns it with the warnings about the request.
    ///
    /// # Errors
    /// Returns an error if the request is invalid or no container engine is reachable.
    pub async fn prepare_debug_run(
        &self,
        request: Request,
        options: &DebugOptions,
    ) -> Result<(DebugRun, Vec<String>), Error> {
        let resolved = self.resolve(request).await?;
        let task_key = resolved.request.identity();
        let run = self.docker().prepare_debug_run(&resolved.draft, &task_key, options).await?;
        Ok((run, resolved.warnings))
    }

    /// Runs a debug run in the foreground; returns the exit code of its last command.
    ///
    /// # Errors
    /// Returns an error if the engine's command line cannot be spawned.
    pub async fn debug(&self, run: &DebugRun) -> Result<u8, Error> {
        let mut code = 0;
        for command in &run.commands {
            code = self.run_in_foreground(command).await?;
            if code != 0 {
                break;
            }
        }
        Ok(code)
    }

    /// Removes the secrets of a debug run, and optionally its workspace.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub async fn remove_debug_run(&self, run: &DebugRun, with_workspace: bool) -> Result<(), Error> {
        self.docker().remove_debug_run(run, with_workspace).await
    }

    fn docker(&self) -> Docker {
        Docker::new(std::sync::Arc::clone(&self.config))
    }

    async fn run_in_foreground(&self, line: &CommandLine) -> Result<u8, Error> {
        let CommandLine { program, arguments } = line;
        let missing = || {
            Error::configuration(format!("`{program}` not found in PATH")).with_hint(format!(
                "Install the command line of {program}, or print the commands with `--print` and run them elsewhere."
            ))
        };
        let path = process::find(program, self.config.environment.os("PATH")).ok_or_else(missing)?;
        let cannot = |error: std::io::Error| {
            Error::new(Reason::IoError, format!("cannot run {}: {error}", path.display()))
        };
        let mut command = process::foreground_command(&path);
        for name in ["PATH", "HOME", "TERM", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"] {
            if let Some(value) = self.config.environment.os(name) {
                command.env(name, value);
            }
        }
        command.args(arguments);
        // Ctrl-C reaches the engine's client too, which forwards it: wait while the run saves its work.
        let mut interrupts = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut child = tokio::process::Command::from(command).spawn().map_err(cannot)?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(exit_code(status.map_err(cannot)?)),
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {
                    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
                    // None if the child has exited: `wait` returns next.
                    if let Some(pid) = pid {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    }
                }
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or_else(|| Reason::InternalError.exit_code())
}
