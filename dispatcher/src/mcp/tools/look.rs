//! `get_task_status` and `list_tasks`.

use jiff::Timestamp;

use super::Answer;
use crate::mcp::answers::{ListAnswer, RunView, StatusAnswer, views};
use crate::mcp::arguments::{ListArguments, RunArguments, parsed, task};
use crate::mcp::server::Server;
use crate::mcp::text::{candidates, render_list, render_run};
use crate::mcp::which::{Refusal, which};
use crate::problem::Problem;
use crate::task::selection::{PHASES, Purpose, phase_named};
use crate::verbs::Filter;

/// How many runs are listed if nobody says otherwise.
const LISTED: u32 = 20;

pub(super) async fn status(
    server: &Server,
    arguments: &RunArguments,
) -> Result<Answer<StatusAnswer>, Refusal> {
    let dispatcher = server.dispatcher()?;
    let now = Timestamp::now();
    match which(&dispatcher, arguments, Purpose::Look).await {
        Ok(status) => Ok(Answer {
            text: render_run(&status, now),
            value: StatusAnswer { run: Some(RunView::from(&status)), candidates: Vec::new() },
        }),
        // Looking does no harm: what all of them do may be the answer that was wanted.
        Err(Refusal::Several(statuses)) => Ok(Answer {
            text: candidates(&statuses, now),
            value: StatusAnswer { run: None, candidates: views(&statuses) },
        }),
        Err(Refusal::Problem(problem)) => Err(problem.into()),
    }
}

pub(super) async fn list(server: &Server, arguments: &ListArguments) -> Result<Answer<ListAnswer>, Refusal> {
    let ListArguments { service, task_id, phase, limit } = arguments;
    let phase = phase.as_deref().filter(|text| !text.trim().is_empty());
    let phase = phase.map(|text| {
        phase_named(text).ok_or_else(|| {
            let names = PHASES.map(orchestrator_contract::Phase::name);
            Problem::request(format!("`{text}` is no phase"))
                .next(format!("Use one of {}.", names.join(", ")))
        })
    });
    let filter = Filter {
        service: parsed(service.as_deref())?,
        task: task(task_id.as_ref())?,
        phase: phase.transpose()?,
    };
    let mut statuses = server.dispatcher()?.list(&filter).await?;
    let limit = usize::try_from(limit.unwrap_or(LISTED).clamp(1, 200)).unwrap_or(usize::MAX);
    let more = statuses.len().saturating_sub(limit);
    statuses.truncate(limit);
    Ok(Answer {
        text: render_list(&statuses, more, Timestamp::now()),
        value: ListAnswer { runs: views(&statuses), more },
    })
}
