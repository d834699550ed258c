//! `submit_implementation_task`.

use orchestrator_contract::names::Transport;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RepositoryUrl};

use super::output::ToolOutput;
use crate::error::Error;
use crate::mcp::arguments::{SubmitArguments, parse_optional};
use crate::mcp::outputs::{RunSummary, SubmitOutput};
use crate::mcp::select::{ToolError, all, known_services, select_from, still_active};
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
    let overrides = overrides(&arguments, &dispatcher, server.origin)?;
    let (request, earlier) = request(&dispatcher, &arguments, overrides, &all).await?;
    let last = all.iter().find(|status| status.service == request.service).cloned();
    let submission = submit_detached(dispatcher, request).await?;
    Ok(submit_output(submission, &PriorRuns { last, earlier }))
}

/// Submits in a task of its own, so that a disconnecting client does not leave half a submission behind.
pub(super) async fn submit_detached(dispatcher: Dispatcher, request: Request) -> Result<Submission, Error> {
    tokio::spawn(async move { dispatcher.submit(request).await })
        .await
        .map_err(|error| Error::new(Reason::InternalError, format!("the submission failed: {error}")))?
}

/// Builds the output for a submission.
pub(super) fn submit_output(submission: Submission, prior: &PriorRuns) -> ToolOutput<SubmitOutput> {
    let result = match submission.result {
        SubmitOutcome::Created => "created",
        SubmitOutcome::AlreadyRunning => "already_running",
        SubmitOutcome::ConflictingRun => "conflicting_run",
    };
    ToolOutput {
        text: render_submission(&submission, prior),
        value: SubmitOutput {
            result: result.to_owned(),
            run: RunSummary::from(&submission.status),
            warnings: submission.warnings,
        },
    }
}

/// Builds the request, and returns it with the finished attempt that it retries.
async fn request(
    dispatcher: &Dispatcher,
    arguments: &SubmitArguments,
    overrides: Overrides,
    all: &[Status],
) -> Result<(Request, Option<Status>), ToolError> {
    let mode = mode(arguments)?;
    let named = arguments.run.as_deref().is_some_and(|run| !run.trim().is_empty());
    if named && mode != Mode::Retry {
        return Err(Error::invalid_request("`run` names the attempt to retry, but `retry` is not set")
            .with_hint("Pass retry: true with it, or omit it.")
            .into());
    }
    let known = known_services(dispatcher, all);
    let service = arguments.service(&known)?;
    let (task, agent) = (arguments.task()?, arguments.agent()?);
    if let (Some(service), Some(task), false) = (&service, task, named) {
        // A retry uses the agent of the earlier attempt.
        let of_task = |status: &&Status| {
            let kind = status.kind == Kind::Implementation;
            kind && status.service == *service && status.task_id == Some(task)
        };
        let is_agent = |status: &&Status| agent.as_ref().is_none_or(|agent| status.agent == *agent);
        let attempts = || all.iter().filter(of_task).filter(is_agent);
        let earlier = attempts().find(|status| status.phase.is_final()).cloned();
        let last = earlier.as_ref().or_else(|| attempts().next()).filter(|_| mode != Mode::First);
        let agent = match (&agent, last) {
            (Some(agent), _) => agent.clone(),
            (None, Some(last)) => last.agent.clone(),
            (None, None) => dispatcher.config().default_agent()?,
        };
        let kind = Kind::Implementation;
        let request = Request { kind, task: Some(task), service: service.clone(), agent, mode, overrides };
        return Ok((request, earlier.filter(|_| mode == Mode::Retry)));
    }
    if mode != Mode::Retry {
        return Err(missing(service.is_none(), task.is_none(), all).into());
    }
    let earlier = select_from(all, &known, &arguments.run_arguments(), Purpose::Retry)?;
    if !earlier.phase.is_final() {
        return Err(still_active(&earlier.run).into());
    }
    let mut request = dispatcher.retry_request(&earlier.run, overrides).await?;
    request.agent = agent.unwrap_or(request.agent);
    Ok((request, Some(earlier)))
}

fn mode(arguments: &SubmitArguments) -> Result<Mode, Error> {
    match (arguments.retry, arguments.fresh) {
        (true, true) => Err(Error::invalid_request("retry and fresh are mutually exclusive")
            .with_hint("Pass retry: true to continue the last attempt, or fresh: true to start over.")),
        (true, false) => Ok(Mode::Retry),
        (false, true) => Ok(Mode::Fresh),
        (false, false) => Ok(Mode::First),
    }
}

fn missing(service: bool, task: bool, all: &[Status]) -> Error {
    let arguments = match (service, task) {
        (true, true) => "`service` and `task_id` are",
        (true, false) => "`service` is",
        (false, _) => "`task_id` is",
    };
    let mut services: Vec<&str> = all.iter().map(|status| status.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    let known = match services.as_slice() {
        [] => String::new(),
        services => format!(" Services with runs: {}.", services.join(", ")),
    };
    Error::invalid_request(format!("{arguments} missing: a submission needs the task and its service"))
        .with_hint(format!("Ask the user if unknown. To retry the last task, pass retry: true.{known}"))
}

fn overrides(
    arguments: &SubmitArguments,
    dispatcher: &Dispatcher,
    origin: TransportKind,
) -> Result<Overrides, Error> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let url = |parameter: &str, text: &Option<String>| {
        parse_repository_argument(parameter, text.as_deref(), dispatcher, origin)
    };
    Ok(Overrides {
        model: text(&arguments.model),
        branch: parse_optional("branch", arguments.branch.as_deref())?,
        guidance: text(&arguments.guidance),
        repository_url: url("repository_url", &arguments.repository_url)?,
        platform_repository_url: url("platform_repository_url", &arguments.platform_repository_url)?,
        platform_branch: parse_optional("platform_branch", arguments.platform_branch.as_deref())?,
        docs_directory: parse_optional("docs_directory", arguments.docs_directory.as_deref())?,
        github_user: text(&arguments.github_user),
        working_directory: parse_optional("working_directory", arguments.working_directory.as_deref())?,
        timeout_minutes: arguments.timeout_minutes,
        cost_usd: arguments.cost_usd,
        turns: arguments.turns,
        wait_for_quota_minutes: arguments.wait_for_quota_minutes,
        ..Overrides::default()
    })
}

/// Parses a repository URL; a relative path starts at the working directory.
pub(super) fn parse_repository_argument(
    parameter: &str,
    text: Option<&str>,
    dispatcher: &Dispatcher,
    origin: TransportKind,
) -> Result<Option<RepositoryUrl>, Error> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let url = dispatcher
        .config()
        .parse_repository(text, &dispatcher.config().folder.path)
        .map_err(|error| error.in_place(parameter))?;
    match (origin, url.transport()) {
        (TransportKind::Http, Transport::Local) => Err(Error::invalid_request(format!(
            "invalid `{parameter}`: `{text}` is a path on your machine, which this server cannot access"
        ))
        .with_hint("Use a URL such as git@github.com:myorg/trader.git.")),
        (TransportKind::Http | TransportKind::Stdio, _) => Ok(Some(url)),
    }
}
