//! `submit_implementation_task`.

use orchestrator_contract::names::Transport;
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RepositoryUrl};

use super::Answer;
use crate::config::parse_repository;
use crate::mcp::answers::{RunView, SubmitAnswer};
use crate::mcp::arguments::{SubmitArguments, parsed};
use crate::mcp::server::{Origin, Server};
use crate::mcp::text::{Before, render_submission};
use crate::mcp::which::{Refusal, all, among};
use crate::problem::Problem;
use crate::task::request::{Request, Wishes};
use crate::task::selection::Purpose;
use crate::task::status::Status;
use crate::verbs::{Dispatcher, Started, Submission};

pub(super) async fn submit(
    server: &Server,
    arguments: SubmitArguments,
) -> Result<Answer<SubmitAnswer>, Refusal> {
    let dispatcher = server.dispatcher()?;
    let all = all(&dispatcher).await?;
    let wishes = wishes(&arguments, &dispatcher, server.origin)?;
    let (request, earlier) = request(&dispatcher, &arguments, wishes, &all).await?;
    let last = all.iter().find(|status| status.service == request.service).cloned();
    // A client that gives up must not leave half a submission behind.
    let submission = tokio::spawn(async move { dispatcher.submit(request).await })
        .await
        .map_err(|error| Problem::new(Reason::Internal, format!("submitting ended early: {error}")))??;
    Ok(answer(submission, &Before { last, earlier }))
}

/// What came of a submission.
pub(super) fn answer(submission: Submission, before: &Before) -> Answer<SubmitAnswer> {
    let started = match submission.started {
        Started::New => "new",
        Started::AlreadyAtWork => "already_at_work",
        Started::AtWorkOtherwise => "at_work_otherwise",
    };
    Answer {
        text: render_submission(&submission, before),
        value: SubmitAnswer {
            started: started.to_owned(),
            run: RunView::from(&submission.status),
            warnings: submission.warnings,
        },
    }
}

/// What is asked for, and the finished attempt that it goes on from.
async fn request(
    dispatcher: &Dispatcher,
    arguments: &SubmitArguments,
    wishes: Wishes,
    all: &[Status],
) -> Result<(Request, Option<Status>), Refusal> {
    let mode = match (arguments.retry, arguments.fresh) {
        (true, true) => {
            return Err(Problem::request("retry and fresh exclude each other")
                .next("Give retry: true to go on from the last attempt, or fresh: true to start over.")
                .into());
        }
        (true, false) => Mode::Retry,
        (false, true) => Mode::Fresh,
        (false, false) => Mode::First,
    };
    let named = arguments.run.as_deref().is_some_and(|run| !run.trim().is_empty());
    if named && mode != Mode::Retry {
        return Err(Problem::request("`run` names an earlier attempt, and this is no retry")
            .next("Give retry: true with it, or leave it out.")
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
        let request = Request { kind, task: Some(task), service: service.clone(), agent, mode, wishes };
        return Ok((request, earlier.filter(|_| mode == Mode::Retry)));
    }
    if mode != Mode::Retry {
        return Err(missing(service.is_none(), task.is_none(), all).into());
    }
    let earlier = among(all, &arguments.which(), Purpose::Retry)?;
    if !earlier.phase.is_final() {
        let run = &earlier.run;
        return Err(Problem::new(Reason::WorkspaceBusy, format!("`{run}` is still at work"))
            .next(format!(
                "Wait for it (dispatcher wait {run}) or stop it (dispatcher stop {run}), then retry."
            ))
            .into());
    }
    let mut request = dispatcher.retry_request(&earlier.run, wishes).await?;
    request.agent = agent.unwrap_or(request.agent);
    Ok((request, Some(earlier)))
}

fn missing(service: bool, task: bool, all: &[Status]) -> Problem {
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
    Problem::request(format!("{what} missing: say which task of which service is to be implemented")).next(
        format!(
            "Ask the user if they have not said it. To try the last task again, give retry: true.{there}"
        ),
    )
}

fn wishes(arguments: &SubmitArguments, dispatcher: &Dispatcher, origin: Origin) -> Result<Wishes, Problem> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let url = |text: &Option<String>| repository(text.as_deref(), dispatcher, origin);
    Ok(Wishes {
        model: text(&arguments.model),
        branch: parsed(arguments.branch.as_deref())?,
        guidance: text(&arguments.guidance),
        repository_url: url(&arguments.repository_url)?,
        platform_repository_url: url(&arguments.platform_repository_url)?,
        platform_branch: parsed(arguments.platform_branch.as_deref())?,
        docs_directory: parsed(arguments.docs_directory.as_deref())?,
        github_user: text(&arguments.github_user),
        working_directory: parsed(arguments.working_directory.as_deref())?,
        minutes: arguments.minutes,
        cost_usd: arguments.cost_usd,
        turns: arguments.turns,
        ..Wishes::default()
    })
}

/// A repository's address; a relative path starts at the open folder.
pub(super) fn repository(
    text: Option<&str>,
    dispatcher: &Dispatcher,
    origin: Origin,
) -> Result<Option<RepositoryUrl>, Problem> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let url = parse_repository(text, &dispatcher.config().folder.path)?;
    match (origin, url.transport()) {
        (Origin::Http, Transport::Local) => Err(Problem::request(format!(
            "`{text}` is a folder of your machine, which this server cannot reach"
        ))
        .next("Give an address such as git@github.com:myorg/trader.git.")),
        (Origin::Http | Origin::Stdio, _) => Ok(Some(url)),
    }
}
