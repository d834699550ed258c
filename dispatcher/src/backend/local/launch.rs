//! Starts supervisors.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use orchestrator_contract::secrets::GITHUB_TOKEN;
use orchestrator_contract::{TaskSpec, variables};

use super::Local;
use super::store::LockedRun;
use crate::backend::credentials;
use crate::config::Config;
use crate::error::Error;
use crate::process;

/// Everything that is needed to start a supervisor, run and paths of the run apart.
#[derive(Clone)]
pub struct SupervisorCommand {
    /// The supervisor's program.
    pub supervisor: PathBuf,
    /// Flags with their files, in the order in which they are given.
    files: Vec<(&'static str, PathBuf)>,
    environment: Vec<(OsString, OsString)>,
}

impl std::fmt::Debug for SupervisorCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { supervisor, files, environment: _ } = self;
        f.debug_struct("Launch").field("supervisor", supervisor).field("files", files).finish_non_exhaustive()
    }
}

impl SupervisorCommand {
    /// Finds the supervisor and the files that the configuration names.
    ///
    /// # Errors
    /// This system runs no supervisor, it is not found, or a file that is named is not there.
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
        Ok(Self { supervisor: find_supervisor(config)?, files, environment })
    }

    /// Where no token for GitHub is known, asks `gh` for the one it has.
    pub async fn add_token_of_gh(&mut self, config: &Config, task: &TaskSpec) {
        let given = self.files.iter().any(|(flag, path)| match *flag {
            "--github-token-file" => true,
            "--secrets-dir" => path.join(GITHUB_TOKEN).is_file(),
            _ => false,
        });
        if given {
            return;
        }
        if let Some(token) = credentials::gh_auth_token_if_needed(config, task).await {
            self.environment.push(("GITHUB_TOKEN".into(), token.into()));
        }
    }

    /// The supervisor's arguments for a run.
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

/// Whether a supervisor can run on a system, by the name that the compiler gives it.
///
/// # Errors
/// It cannot: it confines the agent by means that only Linux has.
pub fn check_platform(system: &str) -> Result<(), Error> {
    if system == "linux" {
        return Ok(());
    }
    Err(Error::configuration(format!("runs on this machine itself need Linux, and this is {system}"))
        .with_hint("Have the run run in a container or in a cluster, or submit from a Linux machine."))
}

/// The supervisor: as configured, else next to this program, else in `PATH`.
///
/// # Errors
/// There is none; the message lists where it was looked for.
pub fn find_supervisor(config: &Config) -> Result<PathBuf, Error> {
    if let Some(path) = &config.supervisor {
        if process::is_program(path) {
            return Ok(path.clone());
        }
        return Err(Error::configuration(format!("the supervisor {} is no program", path.display()))
            .with_hint("Name the right one with --supervisor or ORCHESTRATOR_SUPERVISOR."));
    }
    let beside = config.executable_dir.as_ref().map(|folder| folder.join("supervisor"));
    if let Some(path) = beside.as_ref().filter(|path| process::is_program(path)) {
        return Ok(path.clone());
    }
    process::find("supervisor", config.environment.os("PATH")).ok_or_else(|| {
        let beside = beside.map_or(String::new(), |path| format!("{} is no program, and ", path.display()));
        Error::configuration(format!("cannot find the supervisor: {beside}there is none in PATH")).with_hint(
            "Install it next to the dispatcher, or name it with --supervisor or ORCHESTRATOR_SUPERVISOR.",
        )
    })
}

impl Local {
    /// Starts the supervisor of a run that was prepared.
    ///
    /// It makes itself a session of its own (`--new-session`); it is not put
    /// into a process group of its own here, because the leader of a group
    /// cannot make a session (setsid(2)). Its stdin is the lock, which thereby
    /// lives as long as it does.
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
                // Nobody waits for it: it goes on when this program has ended. Should it end first, the
                // runtime collects it.
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
