//! `get_task_logs`.

use super::output::ToolOutput;
use crate::mcp::arguments::LogsArguments;
use crate::mcp::outputs::LogsOutput;
use crate::mcp::select::{ToolError, select_run};
use crate::mcp::server::Server;
use crate::mcp::text::{LogPage, LogRange, paginate, render_log};
use crate::task::selection::Purpose;
use crate::task::text::{ColorChoice, render_event};

/// Default number of lines.
const DEFAULT_LINES: u32 = 100;

/// Maximum number of lines.
const MAX_LINES: u32 = 500;

pub(super) async fn logs(
    server: &Server,
    arguments: &LogsArguments,
) -> Result<ToolOutput<LogsOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let run = select_run(&dispatcher, &arguments.run_arguments(), Purpose::Inspect).await?.run;
    let cursor = arguments.cursor.unwrap_or_default();
    let mut lines = Vec::new();
    let status = dispatcher
        .logs(&run, false, |event, _| {
            if event.seq > cursor
                && let Some(line) = render_event(event, ColorChoice::No)
            {
                lines.push((event.seq, line));
            }
            Ok(())
        })
        .await?;
    let count = |lines: u32| usize::try_from(lines.clamp(1, MAX_LINES)).unwrap_or(usize::MAX);
    let range = match (arguments.tail, arguments.cursor, arguments.limit) {
        (Some(tail), ..) => LogRange::Tail(count(tail)),
        (None, Some(_), limit) => LogRange::Head(count(limit.unwrap_or(DEFAULT_LINES))),
        (None, None, limit) => LogRange::Tail(count(limit.unwrap_or(DEFAULT_LINES))),
    };
    let page = paginate(lines, range, status.last_event_seq.max(cursor));
    let text = render_log(&status, &page);
    let LogPage { lines, next_cursor, remaining, skipped } = page;
    let value = LogsOutput {
        run: status.run.to_string(),
        phase: status.phase.name().to_owned(),
        lines,
        next_cursor,
        remaining,
        skipped,
    };
    Ok(ToolOutput { text, value })
}
