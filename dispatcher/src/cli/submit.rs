//! `dispatcher submit`.

use orchestrator_contract::task::Mode;
use orchestrator_contract::{AgentName, Kind, Phase, TaskId};

use super::context::CliContext;
use super::overrides::{OverrideArgs, SubmitMode};
use super::wait;
use crate::backend::docker::quote;
use crate::error::Error;
use crate::operations::{Preview, Submission, SubmitOutcome};
use crate::task::plan::render_plan;
use crate::task::request::Request;

/// Implement a task with an agent
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Implement a task with an agent

A task is an entry of Task Master's tasks.json (https://github.com/eyaltoledano/claude-task-master), \
which the platform repository holds in its folder `.taskmaster`. An agent is a named account, such \
as claude-agent-1: with it, the Claude Code CLI changes the repository given by --repository-url, then \
the run pushes a branch and opens a pull request. A service is a name that you choose for a workspace, \
which is kept from run to run.

The run continues after this command exits. If the same task is already running, prints that run.")]
#[command(after_long_help = "\
Examples:
  dispatcher submit --task 1 --service trader --repository-url git@github.com:myorg/trader.git
  dispatcher submit --task 2 --service trader --working-directory trading-engine --wait
  dispatcher submit --task 2 --service trader --retry --guidance-file notes.md
  dispatcher submit --task 3 --service auth --verify \"cargo test\" --timeout-minutes 60 --dry-run")]
pub(super) struct Arguments {
    /// Task ID: `id` in tasks.json
    #[arg(long, value_name = "ID")]
    task: TaskId,
    /// Service that owns the workspace; one active run at a time
    #[arg(long, value_name = "NAME")]
    service: String,
    /// Agent that runs the task [default: claude-agent-1]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Retry the last attempt: same branch and session
    #[arg(long, conflicts_with = "fresh")]
    retry: bool,
    /// Start over: new branch, session and pull request
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(flatten)]
    mode: SubmitMode,
}

pub(super) async fn run(context: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { task, service, agent, retry, fresh, overrides, mode: submit_mode } = arguments;
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
    submit(context, request, submit_mode).await
}

/// Submits a request, prints the result, and waits if requested.
pub(super) async fn submit(context: &CliContext, request: Request, mode: SubmitMode) -> Result<u8, Error> {
    if mode.dry_run {
        let preview = context.dispatcher.preview(request).await?;
        warn(context, &preview.warnings);
        context.output.result(&preview, || render_preview(&preview))?;
        return Ok(0);
    }
    let submission = context.dispatcher.submit(request).await?;
    warn(context, &submission.warnings);
    if mode.wait {
        context.output.note(render_submission(&submission).lines().next().unwrap_or_default());
        return wait::wait(context, &submission.run, None).await;
    }
    context.output.result(&submission, || render_submission(&submission))?;
    Ok(0)
}

fn warn(context: &CliContext, warnings: &[String]) {
    for warning in warnings {
        context.output.warn(warning);
    }
}

fn render_submission(submission: &Submission) -> String {
    let Submission { result, run, task, status, warnings: _, native_command, continues } = submission;
    let head = match result {
        SubmitOutcome::Created if status.phase == Phase::Failed => {
            format!("started {run}, which failed: {}", status.message.as_deref().unwrap_or_default())
        }
        SubmitOutcome::Created => format!("started {run}"),
        SubmitOutcome::AlreadyRunning => format!("{run} is already running ({})", status.phase),
        SubmitOutcome::ConflictingRun => format!(
            "{run} is already running this task ({}) with other options, which stay in effect; nothing was \
             started",
            status.phase
        ),
    };
    let native = native_command.as_ref().map_or(String::new(), |command| format!("or:     {command}\n"));
    format!(
        "{head}\n{}follow: dispatcher logs -f {run}\nstatus: dispatcher status {run}\n{native}",
        render_plan(task, continues.as_ref())
    )
}

fn render_preview(preview: &Preview) -> String {
    let Preview { dry_run: _, already_running, task, command, warnings: _, continues } = preview;
    let head = match already_running {
        Some(run) => format!("would return {run}, which is already running"),
        None => format!("would start {} (dry run)", task.run),
    };
    let json = serde_json::to_string_pretty(task).unwrap_or_default();
    let line: Vec<String> = command.iter().map(|word| quote(word)).collect();
    format!("{head}\n{}\n{}\n\n{json}\n", render_plan(task, continues.as_ref()), line.join(" "))
}
