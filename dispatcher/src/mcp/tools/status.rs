//! `get_task_status` and `list_tasks`.

use jiff::Timestamp;

use super::ToolOutput;
use crate::error::Error;
use crate::mcp::arguments::{ListArguments, RunArguments, parse_optional, task};
use crate::mcp::outputs::{ListOutput, RunSummary, StatusOutput, views};
use crate::mcp::select::{ToolError, which};
use crate::mcp::server::Server;
use crate::mcp::text::{candidates, render_list, render_run};
use crate::operations::Filter;
use crate::task::selection::{PHASES, Purpose, parse_phase};

/// How many runs are listed if nobody says otherwise.
const LISTED: u32 = 20;

pub(super) async fn status(
    server: &Server,
    arguments: &RunArguments,
) -> Result<ToolOutput<StatusOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let now = Timestamp::now();
    match which(&dispatcher, arguments, Purpose::Inspect).await {
        Ok(status) => Ok(ToolOutput {
            text: render_run(&status, now),
            value: StatusOutput { run: Some(RunSummary::from(&status)), candidates: Vec::new() },
        }),
        // Looking does no harm: what all of them do may be the answer that was wanted.
        Err(ToolError::Ambiguous(statuses)) => Ok(ToolOutput {
            text: candidates(&statuses, now),
            value: StatusOutput { run: None, candidates: views(&statuses) },
        }),
        Err(ToolError::Failed(problem)) => Err(problem.into()),
    }
}

pub(super) async fn list(
    server: &Server,
    arguments: &ListArguments,
) -> Result<ToolOutput<ListOutput>, ToolError> {
    let ListArguments { service, task_id, phase, limit } = arguments;
    let phase = phase.as_deref().filter(|text| !text.trim().is_empty());
    let phase = phase.map(|text| {
        parse_phase(text).ok_or_else(|| {
            let names = PHASES.map(orchestrator_contract::Phase::name);
            Error::invalid_request(format!("`{text}` is no phase"))
                .with_hint(format!("Use one of {}.", names.join(", ")))
        })
    });
    let filter = Filter {
        service: parse_optional(service.as_deref())?,
        task: task(task_id.as_ref())?,
        phase: phase.transpose()?,
    };
    let mut statuses = server.dispatcher()?.list(&filter).await?;
    let limit = usize::try_from(limit.unwrap_or(LISTED).clamp(1, 200)).unwrap_or(usize::MAX);
    let more = statuses.len().saturating_sub(limit);
    statuses.truncate(limit);
    Ok(ToolOutput {
        text: render_list(&statuses, more, Timestamp::now()),
        value: ListOutput { runs: views(&statuses), remaining: more },
    })
}
