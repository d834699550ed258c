//! `get_task_status` and `list_tasks`.

use jiff::Timestamp;

use super::output::ToolOutput;
use crate::error::Error;
use crate::mcp::arguments::{ListArguments, RunArguments, service as parse_service, task};
use crate::mcp::outputs::{ListOutput, RunSummary, StatusOutput, summaries};
use crate::mcp::select::{ToolError, select_run};
use crate::mcp::server::Server;
use crate::mcp::text::{candidates, render_damaged, render_list, render_run};
use crate::operations::Filter;
use crate::task::selection::{PHASES, Purpose, parse_phase};
use crate::task::suggest;

/// Default number of runs to list.
const DEFAULT_LIMIT: u32 = 20;

pub(super) async fn status(
    server: &Server,
    arguments: &RunArguments,
) -> Result<ToolOutput<StatusOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let now = Timestamp::now();
    match select_run(&dispatcher, arguments, Purpose::Inspect).await {
        Ok(status) => Ok(ToolOutput {
            text: render_run(&status, now),
            value: StatusOutput { run: Some(RunSummary::from(&status)), candidates: Vec::new() },
        }),
        // Not an error for a read-only tool: the status of all of them may answer the question.
        Err(ToolError::Ambiguous(statuses)) => Ok(ToolOutput {
            text: candidates(&statuses, now),
            value: StatusOutput { run: None, candidates: summaries(&statuses) },
        }),
        Err(ToolError::Failed(error)) => Err(error.into()),
    }
}

pub(super) async fn list(
    server: &Server,
    arguments: &ListArguments,
) -> Result<ToolOutput<ListOutput>, ToolError> {
    let ListArguments { service, task_id, phase, limit } = arguments;
    let phase = phase.as_deref().filter(|text| !text.trim().is_empty());
    let phase =
        phase.map(|text| {
            parse_phase(text).ok_or_else(|| {
                let names = PHASES.map(orchestrator_contract::Phase::name);
                Error::invalid_request(format!("invalid `phase`: `{text}` is not a phase"))
                    .with_hint(format!("{}Use one of {}.", suggest::sentence(text, names), names.join(", ")))
            })
        });
    let dispatcher = server.dispatcher()?;
    let known = dispatcher.known_services().await?;
    let filter = Filter {
        service: parse_service(service.as_deref(), &known)?,
        task: task(task_id.as_ref())?,
        phase: phase.transpose()?,
    };
    let mut statuses = dispatcher.list(&filter).await?;
    // The service, task and phase of a damaged record are not known.
    let damaged = if filter == Filter::default() { dispatcher.damaged().await? } else { Vec::new() };
    let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT).clamp(1, 200)).unwrap_or(usize::MAX);
    let remaining = statuses.len().saturating_sub(limit);
    statuses.truncate(limit);
    Ok(ToolOutput {
        text: render_list(&statuses, remaining, Timestamp::now()) + &render_damaged(&damaged),
        value: ListOutput { runs: summaries(&statuses), remaining, damaged },
    })
}
