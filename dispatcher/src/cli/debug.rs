//! debug.

use std::io::IsTerminal as _;

use orchestrator_contract::task::Mode;
use orchestrator_contract::{AgentName, Kind, ServiceName, Step, TaskId};
use serde_json::json;

use super::CliContext;
use super::overrides::OverrideArgs;
use crate::backend::docker::{DebugOptions, DebugVolume, Shell};
use crate::error::Error;
use crate::task::request::Request;

/// Runs a task by hand, in a container in the foreground, and shows the `docker run` line that does it.
///
/// The container is that of a submitted run: same image, limits and privileges. It works in a volume of
/// its own, which stays for the next time. What it does is real: without --until it pushes a branch and
/// opens a pull request. Such a run is in no list; the exit code is its own.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher debug --task 1 --service trader --until branch
  dispatcher debug --task 1 --service trader --shell
  dispatcher debug --task 1 --service trader --shell='git log --oneline | head'
  dispatcher debug --task 1 --service trader --print > run.sh

Steps: check, platform, target, branch, documents, mcp, agent, verify, save, policy, push,
pull_request, report.")]
pub(super) struct Arguments {
    /// The task: its `id` in tasks.json.
    #[arg(long, value_name = "ID")]
    task: TaskId,
    /// The service, which owns the workspace.
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// Who works [default: claude-agent-1].
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Go on from the last attempt in the volume: same branch, same conversation.
    #[arg(long, conflicts_with = "fresh")]
    retry: bool,
    /// Start over: new branch, new conversation, new pull request.
    #[arg(long)]
    fresh: bool,
    /// End after this step, without an outcome.
    #[arg(long, value_name = "STEP", help_heading = "Debugging")]
    until: Option<Step>,
    /// Prepare the workspace, then open a shell in it, as the agent sees it: without any credential.
    /// With a command, run that instead.
    #[arg(
        long,
        value_name = "COMMAND",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        help_heading = "Debugging"
    )]
    shell: Option<String>,
    /// Print the line and run nothing. The task and the secrets are in a volume until you remove it.
    #[arg(long, conflicts_with = "rm_volume", help_heading = "Debugging")]
    print: bool,
    /// Work in this volume [default: workspace-SERVICE-debug].
    #[arg(long, value_name = "NAME", conflicts_with = "service_volume", help_heading = "Debugging")]
    volume: Option<String>,
    /// Work in the volume of submitted runs; one that is at work there is waited for.
    #[arg(long, help_heading = "Debugging")]
    service_volume: bool,
    /// Remove the volume of debugging at the end, with everything in it.
    #[arg(long, conflicts_with_all = ["volume", "service_volume"], help_heading = "Debugging")]
    rm_volume: bool,
    #[command(flatten)]
    wishes: OverrideArgs,
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
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
        wishes,
    } = arguments;
    let agent = match agent {
        Some(agent) => agent,
        None => session.dispatcher.config().default_agent()?,
    };
    let mode = match (retry, fresh) {
        (true, _) => Mode::Retry,
        (false, true) => Mode::Fresh,
        (false, false) => Mode::First,
    };
    let wishes = wishes.into_overrides(session)?;
    let request =
        Request { kind: Kind::Implementation, task: Some(task), service, agent, mode, overrides: wishes };
    let volume = match (volume, service_volume) {
        (Some(name), _) => DebugVolume::Named(name),
        (None, true) => DebugVolume::Service,
        (None, false) => DebugVolume::Debug,
    };
    let shell = shell.map(|command| if command.is_empty() { Shell::Open } else { Shell::Command(command) });
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let wish = DebugOptions { until, shell, volume, terminal: terminal && !print };
    let (debugging, warnings) = session.dispatcher.prepare_debugging(request, &wish).await?;
    for warning in &warnings {
        session.output.warn(warning);
    }
    let lines: Vec<String> = debugging.commands.iter().map(|command| command.render()).collect();
    let line = lines.join(" &&\n");
    if print {
        let words = |command: &crate::backend::docker::CommandLine| {
            std::iter::once(command.program.clone()).chain(command.arguments.clone()).collect::<Vec<_>>()
        };
        let commands: Vec<_> = debugging.commands.iter().map(words).collect();
        let value = json!({
            "commands": commands,
            "secrets_volume": debugging.input_volume,
            "workspace_volume": debugging.workspace,
        });
        session.output.result(&value, || format!("{line}\n"))?;
        session.output.note(&format!(
            "the task and its secrets are in the volume {given}; when you are done: docker volume rm {given}",
            given = debugging.input_volume
        ));
        return Ok(0);
    }
    session.output.note(&line);
    let code = session.dispatcher.debug(&debugging).await;
    // Whatever came of it: the secrets do not stay.
    session.dispatcher.remove_debug_run(&debugging, rm_volume).await?;
    if !rm_volume {
        session.output.note(&format!(
            "the workspace is in the volume {volume}; the next time goes on with it (docker volume rm {volume} \
             removes it)",
            volume = debugging.workspace
        ));
    }
    code
}
