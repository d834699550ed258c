//! `dispatcher debug`.

use std::io::IsTerminal as _;

use orchestrator_contract::task::Mode;
use orchestrator_contract::{AgentName, Kind, Step, TaskId};
use serde_json::json;

use super::context::CliContext;
use super::overrides::OverrideArgs;
use crate::backend::docker::{DebugOptions, DebugVolume, Shell};
use crate::error::Error;
use crate::task::request::Request;

/// Run a task in a container in the foreground
///
/// Prints and runs a `docker run` command with the image, inputs and privileges of a submitted run. It is
/// one container, in which the supervisor confines the agent: a service's own image is not used. The
/// workspace is a volume for debugging, which is kept for the next time. The run has real effects:
/// without --until it pushes a branch and opens a pull request. It does not show up in `list`. Exits
/// with the run's exit code.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher debug --task 1 --service trader --until branch
  dispatcher debug --task 1 --service trader --shell
  dispatcher debug --task 1 --service trader --shell='git log --oneline | head'
  dispatcher debug --task 1 --service trader --print > run.sh
  dispatcher debug --task 1 --service trader --service-volume --shell

Steps: check, platform, target, branch, documents, mcp, agent, commit, policy, verify, push,
pull_request, report.")]
pub(super) struct Arguments {
    /// Task ID: `id` in tasks.json
    #[arg(long, value_name = "ID")]
    task: TaskId,
    /// Service that owns the workspace
    #[arg(long, value_name = "NAME")]
    service: String,
    /// Agent that runs the task [default: claude-agent-1]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Continue from the last attempt in the volume: same branch and session
    #[arg(long, conflicts_with = "fresh")]
    retry: bool,
    /// Start over: new branch, session and pull request
    #[arg(long)]
    fresh: bool,
    /// Stop after this step, without an outcome
    #[arg(long, value_name = "STEP", help_heading = "Debugging")]
    until: Option<Step>,
    /// Prepare the workspace, then open a shell in it
    ///
    /// The shell has the agent's view: no credentials. With a command, runs that instead.
    #[arg(
        long,
        value_name = "COMMAND",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        help_heading = "Debugging"
    )]
    shell: Option<String>,
    /// Print the command, do not run it
    ///
    /// The task and its secrets stay in a volume until you remove it.
    #[arg(long, conflicts_with = "rm_volume", help_heading = "Debugging")]
    print: bool,
    /// Workspace volume [default: workspace-SERVICE-debug]
    #[arg(long, value_name = "NAME", conflicts_with = "service_volume", help_heading = "Debugging")]
    volume: Option<String>,
    /// Look at the service's own worktree with --shell; runs nothing else
    ///
    /// The shell has the agent's user and the service's image. An active run works in the same files.
    #[arg(long, requires = "shell", conflicts_with = "until", help_heading = "Debugging")]
    service_volume: bool,
    /// Remove the debugging volume and its content at the end
    #[arg(long, conflicts_with_all = ["volume", "service_volume"], help_heading = "Debugging")]
    rm_volume: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments {
        task,
        service,
        agent,
        retry,
        fresh,
        until,
        shell,
        print,
        volume,
        service_volume,
        rm_volume,
        overrides,
    } = arguments;
    let service = context.dispatcher.parse_service(&service).await;
    let service = service.map_err(|error| error.in_place("--service"))?;
    let agent = match agent {
        Some(agent) => agent,
        None => context.dispatcher.config().default_agent()?,
    };
    let mode = match (retry, fresh) {
        (true, _) => Mode::Retry,
        (false, true) => Mode::Fresh,
        (false, false) => Mode::First,
    };
    let overrides = overrides.into_overrides(context)?;
    let request = Request { kind: Kind::Implementation, task: Some(task), service, agent, mode, overrides };
    let volume = match (volume, service_volume) {
        (Some(name), _) => DebugVolume::Named(name),
        (None, true) => DebugVolume::Service,
        (None, false) => DebugVolume::Debug,
    };
    let shell = shell.map(|command| if command.is_empty() { Shell::Open } else { Shell::Command(command) });
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let options = DebugOptions { until, shell, volume, terminal: terminal && !print };
    let (debug_run, warnings) = context.dispatcher.prepare_debug_run(request, &options).await?;
    for warning in &warnings {
        context.output.warn(warning);
    }
    let lines: Vec<String> = debug_run.commands.iter().map(|command| command.render()).collect();
    let line = lines.join(" &&\n");
    if print {
        let words = |command: &crate::backend::docker::CommandLine| {
            std::iter::once(command.program.clone()).chain(command.arguments.clone()).collect::<Vec<_>>()
        };
        let commands: Vec<_> = debug_run.commands.iter().map(words).collect();
        let value = json!({
            "commands": commands,
            "secrets_volume": debug_run.input_volume,
            "workspace_volume": debug_run.workspace,
        });
        context.output.result(&value, || format!("{line}\n"))?;
        if let Some(input_volume) = &debug_run.input_volume {
            context.output.note(&format!(
                "the task and its secrets are in volume {input_volume}; remove it with: docker volume rm {input_volume}"
            ));
        }
        return Ok(0);
    }
    context.output.note(&line);
    let code = context.dispatcher.debug(&debug_run).await;
    // Remove the secrets whether or not the run succeeded.
    context.dispatcher.remove_debug_run(&debug_run, rm_volume).await?;
    if !rm_volume && debug_run.input_volume.is_some() {
        context.output.note(&format!(
            "the workspace is in volume {volume} and is reused by the next debug run; remove it with: docker \
             volume rm {volume}",
            volume = debug_run.workspace
        ));
    }
    code
}
