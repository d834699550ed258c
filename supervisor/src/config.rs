//! The only reader of environment and arguments.

mod git_hosts;
mod kubeconfig;
mod secrets;
mod task_flags;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use orchestrator_contract::{Reason, Step, budget, reason, variables};

pub use git_hosts::token_allowed_for_host;
pub use secrets::{ModelAuth, ModelCredential, SecretError, SecretFiles, SecretSource};
pub use task_flags::{TaskError, TaskFlags, TaskInput};

use crate::process::Environment;

/// Prepares, runs and publishes one attempt at one task.
#[derive(Debug, Parser)]
#[command(name = "supervisor", version, about, after_help = exit_code_help(), args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do; `run` if not given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `run`, which is the default.
    #[command(flatten)]
    pub run: RunArguments,
}

/// What the supervisor can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the task from its preparation to its pull request (the default).
    Run(Box<RunArguments>),
    /// Checks everything that a run needs, spends nothing, changes nothing.
    Check(Box<RunArguments>),
    /// Prints the JSON Schema of task, events and outcome.
    Schema,
    /// Connects the agent to an MCP server that the supervisor runs (used by the agent's configuration).
    McpRelay {
        /// The server's name.
        name: String,
        /// The socket on which the supervisor listens.
        #[arg(long)]
        socket: PathBuf,
    },
}

/// The settings of a run: the task, the workspace, the credentials by reference.
#[derive(Args, Clone, Debug)]
pub struct RunArguments {
    /// The task as a file of the contract's form (`supervisor schema`).
    #[arg(long, env = "ORCHESTRATOR_TASK_FILE", conflicts_with_all = ["task", "service"])]
    pub task_file: Option<PathBuf>,
    /// The task by flags and environment alone.
    #[command(flatten)]
    pub task: TaskFlags,
    /// The service's workspace.
    #[arg(long, env = "ORCHESTRATOR_WORKSPACE", default_value = "/workspace")]
    pub workspace: PathBuf,
    /// Ends after this step, without an outcome, for debugging.
    #[arg(long, value_name = "STEP")]
    pub until: Option<Step>,
    /// The Claude Code CLI.
    #[arg(long, env = "ORCHESTRATOR_CLAUDE", default_value = "claude")]
    pub claude: PathBuf,
    /// A folder of MCP server configurations that adds to the built-in ones, or replaces them by name.
    #[arg(long, env = "ORCHESTRATOR_MCP_CONFIG_DIR")]
    pub mcp_config_dir: Option<PathBuf>,
    /// Files that hold credentials.
    #[command(flatten)]
    pub secrets: SecretFiles,
    /// The REST interface of GitHub; another one for GitHub Enterprise.
    #[arg(long, env = variables::GITHUB_API_URL, default_value = "https://api.github.com")]
    pub github_api_url: String,
    /// Hosts that the git tokens are for, besides github.com and the host of the GitHub API.
    #[arg(long, env = variables::GIT_HOSTS, value_name = "HOST,...", value_delimiter = ',')]
    pub git_hosts: Vec<String>,
    /// How standard output is written: `auto` is text on a terminal and JSON elsewhere.
    #[arg(long, env = "ORCHESTRATOR_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// The file of the termination message.
    #[arg(long, env = "ORCHESTRATOR_TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// When this file appears the run is stopped, as by SIGTERM; with the text `now`, as by a second one.
    #[arg(long, env = "ORCHESTRATOR_STOP_FILE")]
    pub stop_file: Option<PathBuf>,
    /// Leaves the session of whoever started this, so that a closed terminal does not end the run.
    #[arg(long)]
    pub new_session: bool,
    /// Seconds that the agent has to end by itself when it is stopped.
    #[arg(long, env = variables::AGENT_GRACE_SECONDS, default_value_t = f64::from(budget::AGENT_GRACE_SECONDS))]
    pub agent_grace_seconds: f64,
    /// Seconds until a run that was asked to stop is asked again, which means: at once. For wherever it is
    /// killed some time after it was asked, as in a cluster; without it each step has all its time.
    #[arg(long, env = variables::STOP_TIMEOUT_SECONDS)]
    pub stop_timeout_seconds: Option<f64>,
    /// Seconds that each step after the agent's end may take: save, push, pull request.
    #[arg(long, env = variables::PUBLISH_TIMEOUT_SECONDS, default_value_t = f64::from(budget::PUBLISH_TIMEOUT_SECONDS))]
    pub publish_timeout_seconds: f64,
    /// Whether what the agent runs is confined by Landlock.
    #[arg(long, env = "ORCHESTRATOR_SANDBOX", value_enum, default_value_t)]
    pub sandbox: Sandbox,
    /// A folder that the agent may read beside the system and the toolchain. Can be repeated.
    #[arg(long, value_name = "DIR")]
    pub allow_read: Vec<PathBuf>,
}

/// How standard output is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One event a line.
    Json,
    /// For people.
    Text,
}

/// Whether what the agent runs is confined.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Sandbox {
    /// Where the kernel can; the outcome says where it cannot.
    #[default]
    Auto,
    /// Not at all.
    Off,
}

fn exit_code_help() -> String {
    format!(
        "Exit codes (`run` and `check`):\n{}\n\nWith --until, 0 says that the step was reached.",
        reason::render_exit_codes()
    )
}

/// Settings that cannot be used; what was wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The reason of the contract.
    pub reason: Reason,
    /// What was wrong.
    pub message: String,
}

/// The environment as it was at the start.
#[derive(Clone, Debug)]
pub struct ProcessEnv {
    variables: BTreeMap<OsString, OsString>,
}

impl ProcessEnv {
    /// Reads the environment of this process, once.
    #[must_use]
    pub fn read() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// The same with the variables that are files: one for each in the folder `environment` of the
    /// secrets. They are for containers, whose environment everyone can read who may ask the engine.
    #[must_use]
    pub fn with_files(mut self, secrets: Option<&Path>) -> Self {
        let entries = secrets.and_then(|folder| {
            std::fs::read_dir(folder.join(orchestrator_contract::secrets::ENVIRONMENT_DIR)).ok()
        });
        for entry in entries.into_iter().flatten().flatten() {
            // What cannot be read is missed by whoever needs it, and they say so.
            if let Ok(value) = std::fs::read_to_string(entry.path()) {
                self.variables.insert(entry.file_name(), value.trim_end_matches('\n').into());
            }
        }
        self
    }

    /// An environment of a test.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { variables }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str)
    }

    /// The few variables that describe the machine.
    #[must_use]
    pub fn passthrough(&self) -> Environment {
        let pair = |name: &&str| Some(((*name).into(), self.get(name)?.to_owned()));
        variables::MACHINE.iter().filter_map(pair).collect()
    }

    /// Where programs are found.
    #[must_use]
    pub fn path(&self) -> OsString {
        self.get("PATH").map_or_else(|| "/usr/local/bin:/usr/bin:/bin".into(), OsStr::to_owned)
    }

    /// The toolchains of rustup: named, or in the home folder.
    #[must_use]
    pub fn rustup_home(&self) -> Option<PathBuf> {
        let named = self.get("RUSTUP_HOME").map(PathBuf::from);
        named.or_else(|| Some(PathBuf::from(self.get("HOME")?).join(".rustup"))).filter(|home| home.is_dir())
    }

    /// Every variable whose name starts with one of the prefixes.
    fn with_prefix<'a>(&'a self, prefixes: &'a [&str]) -> impl Iterator<Item = (OsString, OsString)> + 'a {
        self.variables
            .iter()
            .filter(|(name, value)| {
                !value.is_empty()
                    && name
                        .to_str()
                        .is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            })
            .map(|(name, value)| (name.clone(), value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn help_matches_snapshot() {
        let help = Arguments::command().term_width(100).render_long_help().to_string();
        insta::assert_snapshot!(help.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn task_variables_match_contract() {
        let command = TaskFlags::augment_args(clap::Command::new("task"));
        let mut names: Vec<&str> = command
            .get_arguments()
            .filter_map(|argument| argument.get_env().and_then(OsStr::to_str))
            .collect();
        names.sort_unstable();
        assert_eq!(names, variables::TASK);
    }

    #[test]
    fn command_defaults_to_run() {
        let arguments = Arguments::try_parse_from(["supervisor", "--task-file", "t.json"]).unwrap();
        assert!(arguments.command.is_none());
        assert_eq!(arguments.run.task_file, Some(PathBuf::from("t.json")));
    }

    #[test]
    fn passthrough_environment_has_no_secret() {
        let inherited =
            ProcessEnv::of(&[("TZ", "UTC"), ("GITHUB_TOKEN", "t"), ("AWS_SECRET_ACCESS_KEY", "s")]);
        assert_eq!(inherited.passthrough(), Environment::from([("TZ".into(), "UTC".into())]));
    }
}
