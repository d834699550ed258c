//! What all commands share: global options, configuration and output.

use std::path::PathBuf;

use orchestrator_contract::{Reason, ServiceName, TaskId};

use crate::config::{BackendKind, Config, Environment, Flags, SandboxMode};
use crate::error::Error;
use crate::operations::{Dispatcher, Filter};
use crate::output::{Output, OutputFormat};

/// Options of all commands.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::doc_markdown, reason = "doc comments are help text")]
pub(super) struct GlobalArgs {
    /// Output format
    #[arg(short, long, value_enum, global = true, default_value_t, value_name = "FORMAT")]
    pub(super) output: OutputFormat,
    /// Configuration file; no other file is read [env: ORCHESTRATOR_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    pub(super) config: Option<PathBuf>,
    /// Backend that executes runs [env: ORCHESTRATOR_BACKEND] [default: local]
    #[arg(long, value_enum, global = true, value_name = "BACKEND", help_heading = "Configuration")]
    pub(super) backend: Option<BackendKind>,
    /// Folder of runs and workspaces [env: ORCHESTRATOR_STATE_DIR] [default:
    /// ~/.local/state/orchestrator]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Configuration")]
    pub(super) state_dir: Option<PathBuf>,
    /// Path of the supervisor [env: ORCHESTRATOR_SUPERVISOR]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    pub(super) supervisor: Option<PathBuf>,
    /// Path of the Claude Code CLI [env: ORCHESTRATOR_CLAUDE]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    pub(super) claude: Option<PathBuf>,
    /// Folder of MCP server configurations [env: ORCHESTRATOR_MCP_CONFIG_DIR]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Configuration")]
    pub(super) mcp_config_dir: Option<PathBuf>,
    /// Whether runs need a sandbox [env: ORCHESTRATOR_SANDBOX] [default: required]
    #[arg(long, value_enum, global = true, value_name = "MODE", help_heading = "Configuration")]
    pub(super) sandbox: Option<SandboxMode>,
}

/// The context of a command that uses the configuration.
pub(super) struct CliContext {
    pub(super) dispatcher: Dispatcher,
    pub(super) output: Output,
    pub(super) cwd: PathBuf,
}

impl CliContext {
    /// Loads the configuration.
    pub(super) fn load(global: GlobalArgs) -> Result<Self, Error> {
        let GlobalArgs { output, config, backend, state_dir, supervisor, claude, mcp_config_dir, sandbox } =
            global;
        let (environment, output, cwd) = load_environment(output)?;
        let flags = Flags { config, backend, state_dir, supervisor, claude, mcp_config_dir, sandbox };
        let config = Config::load(environment, flags, &cwd)?;
        Ok(Self { dispatcher: Dispatcher::new(config), output, cwd })
    }

    /// Parses the value of `--service` as a user wrote it.
    pub(super) async fn service(&self, text: Option<&str>) -> Result<Option<ServiceName>, Error> {
        let Some(text) = text else { return Ok(None) };
        let service = self.dispatcher.parse_service(text).await;
        service.map(Some).map_err(|error| error.in_place("--service"))
    }

    /// Returns the runs that `--service` and `--task` select.
    pub(super) async fn filter(&self, service: Option<&str>, task: Option<TaskId>) -> Result<Filter, Error> {
        Ok(Filter { service: self.service(service).await?, task, phase: None })
    }
}

/// Returns environment, output and working directory, for commands without a configuration.
pub(super) fn load_environment(format: OutputFormat) -> Result<(Environment, Output, PathBuf), Error> {
    let environment = Environment::from_process();
    let output = Output::new(format, &environment);
    let cwd = std::env::current_dir().map_err(|error| {
        Error::new(Reason::IoError, format!("cannot find the working directory: {error}"))
            .with_hint("Change to a folder that exists.")
    })?;
    Ok((environment, output, cwd))
}
