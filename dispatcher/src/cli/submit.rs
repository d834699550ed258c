//! submit.

use orchestrator_contract::task::Mode;
use orchestrator_contract::{AgentName, Kind, Phase, ServiceName, TaskId};

use super::overrides::{OverrideArgs, SubmitMode};
use super::{CliContext, wait};
use crate::backend::docker::quote;
use crate::error::Error;
use crate::operations::{Preview, Submission, SubmitOutcome};
use crate::task::request::Request;
use crate::task::text::render_plan;

/// Has an agent implement a task.
///
/// The run goes on when this command has ended. A submission that repeats a
/// running one answers with that run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher submit --task 1 --service trader --repository-url git@github.com:myorg/trader.git
  dispatcher submit --task 2 --service trader --working-directory trading-engine --wait
  dispatcher submit --task 2 --service trader --retry --guidance-file notes.md
  dispatcher submit --task 3 --service auth --verify \"cargo test\" --minutes 60 --dry-run")]
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
    /// Go on from the last attempt: same branch, same conversation.
    #[arg(long, conflicts_with = "fresh")]
    retry: bool,
    /// Start over: new branch, new conversation, new pull request.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    wishes: OverrideArgs,
    #[command(flatten)]
    conduct: SubmitMode,
}

pub(super) async fn run(session: &CliContext, arguments: Arguments) -> Result<u8, Error> {
    let Arguments { task, service, agent, retry, fresh, wishes, conduct } = arguments;
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
    submit(session, request, conduct).await
}

/// Submits, says what came of it, and waits if that is wanted.
pub(super) async fn submit(session: &CliContext, request: Request, conduct: SubmitMode) -> Result<u8, Error> {
    if conduct.dry_run {
        let preview = session.dispatcher.preview(request).await?;
        warn(session, &preview.warnings);
        session.output.result(&preview, || render_preview(&preview))?;
        return Ok(0);
    }
    let submission = session.dispatcher.submit(request).await?;
    warn(session, &submission.warnings);
    if conduct.wait {
        session.output.note(render_submission(&submission).lines().next().unwrap_or_default());
        return wait::wait(session, &submission.run, None).await;
    }
    session.output.result(&submission, || render_submission(&submission))?;
    Ok(0)
}

fn warn(session: &CliContext, warnings: &[String]) {
    for warning in warnings {
        session.output.warn(warning);
    }
}

fn render_submission(submission: &Submission) -> String {
    let Submission { result: started, run, task, status, warnings: _, native_command: elsewhere } =
        submission;
    let head = match started {
        SubmitOutcome::Created if status.phase == Phase::Failed => {
            format!("started {run}, which has failed: {}", status.message.as_deref().unwrap_or_default())
        }
        SubmitOutcome::Created => format!("started {run}"),
        SubmitOutcome::AlreadyRunning => format!("{run} is at work on this already ({})", status.phase),
        SubmitOutcome::ConflictingRun => format!(
            "{run} is at work on this task already ({}); it goes on as it was submitted, nothing of this \
             submission was added",
            status.phase
        ),
    };
    let elsewhere = elsewhere.as_ref().map_or(String::new(), |command| format!("or:        {command}\n"));
    format!(
        "{head}\n{}follow it: dispatcher logs -f {run}\nstatus:    dispatcher status {run}\n{elsewhere}",
        render_plan(task)
    )
}

fn render_preview(preview: &Preview) -> String {
    let Preview { dry_run: _, already_running, task, command, warnings: _ } = preview;
    let head = match already_running {
        Some(run) => format!("would answer with {run}, which is at work already"),
        None => format!("would start {} (nothing was written or started)", task.run),
    };
    let json = serde_json::to_string_pretty(task).unwrap_or_default();
    let line: Vec<String> = command.iter().map(|word| quote(word)).collect();
    format!("{head}\n{}\n{}\n\n{json}\n", render_plan(task), line.join(" "))
}
