//! debug.

use std::process::ExitStatus;

use orchestrator_contract::Reason;
use tokio::signal::unix::{SignalKind, signal};

use super::Dispatcher;
use crate::backend::docker::{CommandLine, DebugOptions, DebugRun, Docker};
use crate::error::Error;
use crate::process;
use crate::task::request::Request;

impl Dispatcher {
    /// Makes a run by hand ready, in a container, wherever submitted runs run.
    ///
    /// # Errors
    /// The request is refused, or there is no engine.
    pub async fn prepare_debugging(
        &self,
        request: Request,
        wish: &DebugOptions,
    ) -> Result<(DebugRun, Vec<String>), Error> {
        let resolved = self.resolve(request).await?;
        let identity = resolved.request.identity();
        let debugging = self.docker().prepare_debug_run(&resolved.draft, &identity, wish).await?;
        Ok((debugging, resolved.warnings))
    }

    /// Runs it in the foreground; gives the exit code of the last command that was started.
    ///
    /// # Errors
    /// The engine's command line cannot be started.
    pub async fn debug(&self, debugging: &DebugRun) -> Result<u8, Error> {
        let mut code = 0;
        for command in &debugging.commands {
            code = self.run_in_foreground(command).await?;
            if code != 0 {
                break;
            }
        }
        Ok(code)
    }

    /// Removes the secrets of a run by hand, and its workspace if that is wanted.
    ///
    /// # Errors
    /// The engine cannot.
    pub async fn forget_debugging(&self, debugging: &DebugRun, workspace_too: bool) -> Result<(), Error> {
        self.docker().remove_debug_run(debugging, workspace_too).await
    }

    fn docker(&self) -> Docker {
        Docker::new(std::sync::Arc::clone(&self.config))
    }

    async fn run_in_foreground(&self, line: &CommandLine) -> Result<u8, Error> {
        let CommandLine { program, arguments } = line;
        let missing = || {
            Error::configuration(format!("there is no `{program}` in PATH to run it with")).with_hint(
                format!(
                    "Install {program}'s command line, or take the line (--print) to where there is one."
                ),
            )
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
        // Ctrl-C goes to the program as well, which passes it on: the run saves its work, and we wait.
        let mut interrupts = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut child = tokio::process::Command::from(command).spawn().map_err(cannot)?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(exit_code(status.map_err(cannot)?)),
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {
                    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
                    // One that has ended meanwhile is waited for next.
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
