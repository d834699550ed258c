//! The only module that reads the supervisor's arguments and environment.

mod git_hosts;
mod kubeconfig;
mod process_env;
mod secrets;
mod task_flags;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use orchestrator_contract::{Step, budget, reason, variables};

use crate::endpoint::Endpoint;
use crate::sandbox::{Kind as SandboxKind, Requirement};

pub use git_hosts::token_allowed_for_host;
pub use process_env::ProcessEnv;
pub use secrets::{ModelAuth, ModelCredential, SecretError, SecretFiles, SecretSource};
pub use task_flags::{TaskError, TaskFlags, TaskInput};

/// Prepare, run and publish one attempt at a task
#[derive(Debug, Parser)]
#[command(name = "supervisor", version, after_help = exit_code_help(), args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// The subcommand; `run` by default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `run`, if there is no subcommand.
    #[command(flatten)]
    pub run: RunArguments,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the task, from preparation to pull request (default)
    Run(Box<RunArguments>),
    /// Check the requirements of a run, without spending or changing anything
    Check(Box<RunArguments>),
    /// Print the JSON Schema of task specs, events and outcomes
    Schema,
    /// Print the kind of sandbox that runs on this machine get
    Sandbox(SandboxArguments),
    /// Prepare the volumes of a run's containers (internal)
    PrepareVolumes {
        /// Volume of the service; it gets the directories tree, verify, private and shared
        #[arg(long, value_name = "DIR")]
        volumes: PathBuf,
        /// Directory that gets a copy of the tools
        #[arg(long, value_name = "DIR")]
        tools: PathBuf,
    },
    /// Connect the agent to an MCP server of the supervisor (internal)
    McpRelay {
        /// Name of the server
        name: String,
        /// Address that the supervisor listens on, or path of its socket
        #[arg(long)]
        address: Endpoint,
        /// Token of the conversation for this server
        #[arg(long, env = variables::MCP_RELAY_TOKEN, hide_env_values = true)]
        token: String,
    },
}

/// The settings of `sandbox`.
#[derive(Args, Clone, Debug)]
pub struct SandboxArguments {
    /// Also print what each sandbox can read, write and reach
    #[arg(long)]
    pub explain: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Workspace of the explanation
    #[arg(long, env = "ORCHESTRATOR_WORKSPACE", default_value = "/workspace")]
    pub workspace: PathBuf,
    /// Directory the agent may read, beside system and toolchain (repeatable)
    #[arg(long, value_name = "DIR")]
    pub allow_read: Vec<PathBuf>,
    /// As in `run`
    #[arg(long, env = variables::SANDBOX, value_enum, default_value_t)]
    pub sandbox: Requirement,
    /// As in `run`
    #[arg(long, env = variables::SANDBOX_KIND, hide = true, value_parser = parse_kind)]
    pub sandbox_kind: Option<SandboxKind>,
}

/// The settings of a run: the task, the workspace, references to credentials.
#[derive(Args, Clone, Debug)]
pub struct RunArguments {
    /// Task spec as a JSON file (see `supervisor schema`)
    #[arg(long, env = "ORCHESTRATOR_TASK_FILE", conflicts_with_all = ["task", "service"])]
    pub task_file: Option<PathBuf>,
    /// The task, if there is no task file.
    #[command(flatten)]
    pub task: TaskFlags,
    /// Workspace of the service
    #[arg(long, env = "ORCHESTRATOR_WORKSPACE", default_value = "/workspace")]
    pub workspace: PathBuf,
    /// Directory of the supervisor's files, if not in the workspace
    ///
    /// It has the directories `private`, which only the supervisor has, and `shared`, which the run's
    /// other containers can read.
    #[arg(long, value_name = "DIR", requires = "guests_dir")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the sockets of the run's other containers: `agent/socket`, `verify/socket`
    ///
    /// The agent, setup and verify commands then run in these containers, and only they open the workspace.
    #[arg(long, value_name = "DIR", requires = "state_dir")]
    pub guests_dir: Option<PathBuf>,
    /// Stop after this step, without an outcome (for debugging)
    #[arg(long, value_name = "STEP")]
    pub until: Option<Step>,
    /// Path of the Claude Code CLI
    #[arg(long, env = "ORCHESTRATOR_CLAUDE", default_value = "claude")]
    pub claude: PathBuf,
    /// Directory of additional MCP server configurations
    ///
    /// A server with the name of a built-in one replaces it.
    #[arg(long, env = "ORCHESTRATOR_MCP_CONFIG_DIR")]
    pub mcp_config_dir: Option<PathBuf>,
    /// Files that contain credentials.
    #[command(flatten)]
    pub secrets: SecretFiles,
    /// URL of the GitHub REST API; set it for GitHub Enterprise
    #[arg(long, env = variables::GITHUB_API_URL, default_value = "https://api.github.com")]
    pub github_api_url: String,
    /// Additional hosts that may receive the git tokens
    ///
    /// github.com and the host of the GitHub API always may.
    #[arg(long, env = variables::GIT_HOSTS, value_name = "HOST,...", value_delimiter = ',')]
    pub git_hosts: Vec<String>,
    /// Format of standard output
    #[arg(long, env = "ORCHESTRATOR_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// File to write the termination message to
    #[arg(long, env = "ORCHESTRATOR_TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// File that stops the run when it appears
    ///
    /// It has the effect of SIGTERM; with the content `now`, that of a second SIGTERM.
    #[arg(long, env = "ORCHESTRATOR_STOP_FILE")]
    pub stop_file: Option<PathBuf>,
    /// Run in a new session, so that closing the terminal does not stop it
    #[arg(long)]
    pub new_session: bool,
    /// Seconds that a stopped agent has to exit before it is killed
    #[arg(long, env = variables::AGENT_GRACE_SECONDS, default_value_t = f64::from(budget::AGENT_GRACE_SECONDS))]
    pub agent_grace_seconds: f64,
    /// Seconds from the first stop request until the push is skipped
    ///
    /// Set it where the platform kills the process after a grace period, such as Kubernetes.
    #[arg(long, env = variables::STOP_TIMEOUT_SECONDS)]
    pub stop_timeout_seconds: Option<f64>,
    /// Seconds that each publishing step may take: save, push, pull request
    #[arg(long, env = variables::PUBLISH_TIMEOUT_SECONDS, default_value_t = f64::from(budget::PUBLISH_TIMEOUT_SECONDS))]
    pub publish_timeout_seconds: f64,
    /// Sandbox of the agent, of setup and verify commands, and of MCP servers
    #[arg(long, env = variables::SANDBOX, value_enum, default_value_t)]
    pub sandbox: Requirement,
    /// The only kind of sandbox to use, for tests
    #[arg(long, env = variables::SANDBOX_KIND, hide = true, value_parser = parse_kind)]
    pub sandbox_kind: Option<SandboxKind>,
    /// Directory the agent may read, beside system and toolchain (repeatable)
    #[arg(long, value_name = "DIR")]
    pub allow_read: Vec<PathBuf>,
}

/// The format of standard output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON
    #[default]
    Auto,
    /// One JSON event per line
    Json,
    /// Human-readable text
    Text,
}

/// Parses a kind of sandbox that confines.
fn parse_kind(name: &str) -> Result<SandboxKind, String> {
    let names = SandboxKind::CONFINING.map(SandboxKind::name);
    SandboxKind::from_name(name)
        .filter(|kind| SandboxKind::CONFINING.contains(kind))
        .ok_or_else(|| format!("use one of: {}", names.join(", ")))
}

fn exit_code_help() -> String {
    format!(
        "Exit codes (`run` and `check`):\n{}\n\nWith --until, 0 means that the step was reached.",
        reason::render_exit_codes()
    )
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
            .filter_map(|argument| argument.get_env().and_then(std::ffi::OsStr::to_str))
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
}
