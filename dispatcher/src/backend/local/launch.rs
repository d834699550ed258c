//! Spawns supervisors.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use orchestrator_contract::secrets::GITHUB_TOKEN;
use orchestrator_contract::{TaskSpec, variables};

use super::handle::Local;
use super::store::LockedRun;
use crate::backend::credentials;
use crate::config::Config;
use crate::error::Error;
use crate::process;

/// A supervisor's command line and environment, without the run's own paths.
#[derive(Clone)]
pub struct SupervisorCommand {
    /// Path of the supervisor.
    pub supervisor: PathBuf,
    /// Flags with their files, in order.
    files: Vec<(&'static str, PathBuf)>,
    environment: Vec<(OsString, OsString)>,
}

impl std::fmt::Debug for SupervisorCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { supervisor, files, environment: _ } = self;
        f.debug_struct("SupervisorCommand")
            .field("supervisor", supervisor)
            .field("files", files)
            .finish_non_exhaustive()
    }
}

impl SupervisorCommand {
    /// Finds the supervisor and the configured files.
    ///
    /// # Errors
    /// Returns an error if the platform is not supported, or the supervisor or a file is missing.
    pub fn prepare(config: &Config, task: &TaskSpec) -> Result<Self, Error> {
        check_platform(std::env::consts::OS)?;
        let mut files = credentials::programs(config)?;
        files.extend(credentials::files(config, task)?.into_iter().map(|file| (file.kind.flag(), file.path)));
        let agent = config.agent(&task.agent)?;
        let mut environment: Vec<(OsString, OsString)> =
            config.environment.passed().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if !agent.git_hosts.is_empty() {
            environment.retain(|(name, _)| name != variables::GIT_HOSTS);
            environment.push((variables::GIT_HOSTS.into(), agent.git_hosts.join(",").into()));
        }
        if let Some(url) = &config.github_api_url {
            environment.retain(|(name, _)| name != variables::GITHUB_API_URL);
            environment.push((variables::GITHUB_API_URL.into(), url.into()));
        }
        if let Some(sandbox) = config.sandbox {
            environment.retain(|(name, _)| name != variables::SANDBOX);
            environment.push((variables::SANDBOX.into(), sandbox.name().into()));
        }
        Ok(Self { supervisor: find_supervisor(config)?, files, environment })
    }

    /// Adds the token of `gh`, if no other GitHub token is configured.
    pub async fn add_gh_token(&mut self, config: &Config, task: &TaskSpec) {
        let has_token = self.files.iter().any(|(flag, path)| match *flag {
            "--github-token-file" => true,
            "--secrets-dir" => path.join(GITHUB_TOKEN).is_file(),
            _ => false,
        });
        if has_token {
            return;
        }
        if let Some(token) = credentials::gh_auth_token_if_needed(config, task).await {
            self.environment.push(("GITHUB_TOKEN".into(), token.into()));
        }
    }

    /// Returns the supervisor's arguments for a run.
    #[must_use]
    pub fn arguments(&self, run_folder: &Path, workspace: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["run".into()];
        let mut flag = |name: &str, value: &OsStr| arguments.extend([name.into(), value.to_owned()]);
        flag("--task-file", run_folder.join("task.json").as_os_str());
        flag("--workspace", workspace.as_os_str());
        flag("--log-format", OsStr::new("json"));
        flag("--stop-file", run_folder.join("stop").as_os_str());
        for (name, path) in &self.files {
            flag(name, path.as_os_str());
        }
        arguments.push("--new-session".into());
        arguments
    }
}

/// Checks that supervisors can run on an operating system, named as in `std::env::consts::OS`.
///
/// # Errors
/// Returns an error unless it is Linux, which confining the agent requires.
pub fn check_platform(system: &str) -> Result<(), Error> {
    if system == "linux" {
        return Ok(());
    }
    Err(Error::configuration(format!("the local backend requires Linux, this is {system}"))
        .with_hint("Use the `docker` or `kubernetes` backend, or submit from a Linux machine."))
}

/// Finds the supervisor: as configured, else beside this executable, else in `PATH`.
///
/// # Errors
/// Returns an error that lists the searched paths.
pub fn find_supervisor(config: &Config) -> Result<PathBuf, Error> {
    if let Some(path) = &config.supervisor {
        if process::is_program(path) {
            return Ok(path.clone());
        }
        return Err(Error::configuration(format!(
            "the supervisor {} is not an executable file",
            path.display()
        ))
        .with_hint("Set its path with --supervisor or ORCHESTRATOR_SUPERVISOR."));
    }
    let beside = config.executable_dir.as_ref().map(|folder| folder.join("supervisor"));
    if let Some(path) = beside.as_ref().filter(|path| process::is_program(path)) {
        return Ok(path.clone());
    }
    process::find("supervisor", config.environment.os("PATH")).ok_or_else(|| {
        let beside = beside
            .map_or(String::new(), |path| format!("{} is not an executable file, and ", path.display()));
        Error::configuration(format!("cannot find the supervisor: {beside}it is not in PATH")).with_hint(
            "Install it beside the dispatcher, or set its path with --supervisor or ORCHESTRATOR_SUPERVISOR.",
        )
    })
}

impl Local {
    /// Spawns the supervisor of a run.
    ///
    /// The supervisor creates its own session (`--new-session`). It must not be a process group leader,
    /// which cannot create a session (setsid(2)). Its stdin is the lock, which is held until it exits.
    pub(super) fn spawn(&self, prepared: LockedRun, launch: &SupervisorCommand) -> Result<(), Error> {
        let LockedRun { run, lock } = prepared;
        let workspace = self.layout(&run.task.service);
        let spawn = || -> Result<(), Error> {
            let mut command = process::command(&launch.supervisor);
            command
                .args(launch.arguments(&run.folder, workspace.root()))
                .envs(launch.environment.iter().map(|(name, value)| (name, value)))
                .current_dir(workspace.root())
                .stdin(lock)
                .stdout(run.append("events.jsonl")?)
                .stderr(run.append("stderr.log")?);
            match tokio::process::Command::from(command).spawn() {
                // Not awaited: it outlives this program. If it exits earlier, the runtime reaps it.
                Ok(_child) => Ok(()),
                Err(error) => Err(Error::configuration(format!(
                    "cannot start the supervisor {}: {error}",
                    launch.supervisor.display()
                ))),
            }
        };
        spawn().inspect_err(|_| run.discard())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_backend_outside_linux_is_rejected_before_start() {
        assert!(check_platform("linux").is_ok());
        let problem = check_platform("macos").unwrap_err();
        assert_eq!(problem.exit_code(), 78);
        assert!(problem.to_string().contains("macos"), "{problem}");
    }

    #[test]
    fn supervisor_command_line_matches_contract() {
        let launch = SupervisorCommand {
            supervisor: "/bin/supervisor".into(),
            files: vec![("--claude", "/bin/claude".into()), ("--github-token-file", "/secrets/token".into())],
            environment: Vec::new(),
        };
        let arguments = launch.arguments(Path::new("/s/runs/r"), Path::new("/s/workspaces/workspace-trader"));
        let line: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        insta::assert_snapshot!(line.join(" "), @"run --task-file /s/runs/r/task.json --workspace /s/workspaces/workspace-trader --log-format json --stop-file /s/runs/r/stop --claude /bin/claude --github-token-file /secrets/token --new-session");
    }
}
