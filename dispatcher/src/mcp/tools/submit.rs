//! `submit_implementation_task`.

use orchestrator_contract::names::Transport;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RepositoryUrl};

use super::ToolOutput;
use crate::config::parse_repository;
use crate::error::Error;
use crate::mcp::arguments::{SubmitArguments, parse_optional};
use crate::mcp::outputs::{RunSummary, SubmitOutput};
use crate::mcp::select::{ToolError, all, select_from};
use crate::mcp::server::{Server, TransportKind};
use crate::mcp::text::{PriorRuns, render_submission};
use crate::operations::{Dispatcher, Submission, SubmitOutcome};
use crate::task::request::{Overrides, Request};
use crate::task::selection::Purpose;
use crate::task::status::Status;

pub(super) async fn submit(
    server: &Server,
    arguments: SubmitArguments,
) -> Result<ToolOutput<SubmitOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let all = all(&dispatcher).await?;
    let wishes = wishes(&arguments, &dispatcher, server.origin)?;
    let (request, earlier) = request(&dispatcher, &arguments, wishes, &all).await?;
    let last = all.iter().find(|status| status.service == request.service).cloned();
    // A client that gives up must not leave half a submission behind.
    let submission = tokio::spawn(async move { dispatcher.submit(request).await })
        .await
        .map_err(|error| Error::new(Reason::InternalError, format!("submitting ended early: {error}")))??;
    Ok(answer(submission, &PriorRuns { last, earlier }))
}

/// What came of a submission.
pub(super) fn answer(submission: Submission, before: &PriorRuns) -> ToolOutput<SubmitOutput> {
    let started = match submission.result {
        SubmitOutcome::Created => "new",
        SubmitOutcome::AlreadyRunning => "already_running",
        SubmitOutcome::ConflictingRun => "conflicting_run",
    };
    ToolOutput {
        text: render_submission(&submission, before),
        value: SubmitOutput {
            result: started.to_owned(),
            run: RunSummary::from(&submission.status),
            warnings: submission.warnings,
        },
    }
}

/// What is asked for, and the finished attempt that it goes on from.
async fn request(
    dispatcher: &Dispatcher,
    arguments: &SubmitArguments,
    wishes: Overrides,
    all: &[Status],
) -> Result<(Request, Option<Status>), ToolError> {
    let mode = match (arguments.retry, arguments.fresh) {
        (true, true) => {
            return Err(Error::invalid_request("retry and fresh exclude each other")
                .with_hint("Give retry: true to go on from the last attempt, or fresh: true to start over.")
                .into());
        }
        (true, false) => Mode::Retry,
        (false, true) => Mode::Fresh,
        (false, false) => Mode::First,
    };
    let named = arguments.run.as_deref().is_some_and(|run| !run.trim().is_empty());
    if named && mode != Mode::Retry {
        return Err(Error::invalid_request("`run` names an earlier attempt, and this is no retry")
            .with_hint("Give retry: true with it, or leave it out.")
            .into());
    }
    let (service, task, agent) = (arguments.service()?, arguments.task()?, arguments.agent()?);
    if let (Some(service), Some(task), false) = (&service, task, named) {
        // Whoever goes on from an attempt goes on as its agent.
        let of_task = |status: &&Status| {
            let kind = status.kind == Kind::Implementation;
            kind && status.service == *service && status.task_id == Some(task)
        };
        let is_agent = |status: &&Status| agent.as_ref().is_none_or(|agent| status.agent == *agent);
        let attempts = || all.iter().filter(of_task).filter(is_agent);
        let earlier = attempts().find(|status| status.phase.is_final()).cloned();
        let before = earlier.as_ref().or_else(|| attempts().next()).filter(|_| mode != Mode::First);
        let agent = match (&agent, before) {
            (Some(agent), _) => agent.clone(),
            (None, Some(before)) => before.agent.clone(),
            (None, None) => dispatcher.config().default_agent()?,
        };
        let kind = Kind::Implementation;
        let request =
            Request { kind, task: Some(task), service: service.clone(), agent, mode, overrides: wishes };
        return Ok((request, earlier.filter(|_| mode == Mode::Retry)));
    }
    if mode != Mode::Retry {
        return Err(missing(service.is_none(), task.is_none(), all).into());
    }
    let earlier = select_from(all, &arguments.which(), Purpose::Retry)?;
    if !earlier.phase.is_final() {
        let run = &earlier.run;
        return Err(Error::new(Reason::WorkspaceBusy, format!("`{run}` is still at work"))
            .with_hint(format!(
                "Wait for it (dispatcher wait {run}) or stop it (dispatcher stop {run}), then retry."
            ))
            .into());
    }
    let mut request = dispatcher.retry_request(&earlier.run, wishes).await?;
    request.agent = agent.unwrap_or(request.agent);
    Ok((request, Some(earlier)))
}

fn missing(service: bool, task: bool, all: &[Status]) -> Error {
    let what = match (service, task) {
        (true, true) => "`service` and `task_id` are",
        (true, false) => "`service` is",
        (false, _) => "`task_id` is",
    };
    let mut services: Vec<&str> = all.iter().map(|status| status.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    let there = match services.as_slice() {
        [] => String::new(),
        services => format!(" Services that have runs: {}.", services.join(", ")),
    };
    Error::invalid_request(format!("{what} missing: say which task of which service is to be implemented"))
        .with_hint(format!(
            "Ask the user if they have not said it. To try the last task again, give retry: true.{there}"
        ))
}

fn wishes(
    arguments: &SubmitArguments,
    dispatcher: &Dispatcher,
    origin: TransportKind,
) -> Result<Overrides, Error> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let url = |text: &Option<String>| repository(text.as_deref(), dispatcher, origin);
    Ok(Overrides {
        model: text(&arguments.model),
        branch: parse_optional(arguments.branch.as_deref())?,
        guidance: text(&arguments.guidance),
        repository_url: url(&arguments.repository_url)?,
        platform_repository_url: url(&arguments.platform_repository_url)?,
        platform_branch: parse_optional(arguments.platform_branch.as_deref())?,
        docs_directory: parse_optional(arguments.docs_directory.as_deref())?,
        github_user: text(&arguments.github_user),
        working_directory: parse_optional(arguments.working_directory.as_deref())?,
        timeout_minutes: arguments.timeout_minutes,
        cost_usd: arguments.cost_usd,
        turns: arguments.turns,
        ..Overrides::default()
    })
}

/// A repository's address; a relative path starts at the open folder.
pub(super) fn repository(
    text: Option<&str>,
    dispatcher: &Dispatcher,
    origin: TransportKind,
) -> Result<Option<RepositoryUrl>, Error> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let url = parse_repository(text, &dispatcher.config().folder.path)?;
    match (origin, url.transport()) {
        (TransportKind::Http, Transport::Local) => Err(Error::invalid_request(format!(
            "`{text}` is a folder of your machine, which this server cannot reach"
        ))
        .with_hint("Give an address such as git@github.com:myorg/trader.git.")),
        (TransportKind::Http | TransportKind::Stdio, _) => Ok(Some(url)),
    }
}
