//! `get_task_logs`.

use super::ToolOutput;
use crate::mcp::arguments::LogsArguments;
use crate::mcp::outputs::LogsOutput;
use crate::mcp::select::{ToolError, which};
use crate::mcp::server::Server;
use crate::mcp::text::{LogPage, LogRange, paginate, render_log};
use crate::task::selection::Purpose;
use crate::task::text::{ColorChoice, render_event};

/// How many lines are given if nobody says otherwise.
const LINES: u32 = 100;

/// How many are given at most.
const LINES_MAX: u32 = 500;

pub(super) async fn logs(
    server: &Server,
    arguments: &LogsArguments,
) -> Result<ToolOutput<LogsOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let run = which(&dispatcher, &arguments.which(), Purpose::Inspect).await?.run;
    let after = arguments.cursor.unwrap_or_default();
    let mut lines = Vec::new();
    let status = dispatcher
        .logs(&run, false, |event, _| {
            if event.seq > after
                && let Some(line) = render_event(event, ColorChoice::No)
            {
                lines.push((event.seq, line));
            }
            Ok(())
        })
        .await?;
    let count = |lines: u32| usize::try_from(lines.clamp(1, LINES_MAX)).unwrap_or(usize::MAX);
    let part = match (arguments.tail, arguments.cursor, arguments.limit) {
        (Some(tail), ..) => LogRange::Tail(count(tail)),
        (None, Some(_), limit) => LogRange::Head(count(limit.unwrap_or(LINES))),
        (None, None, limit) => LogRange::Tail(count(limit.unwrap_or(LINES))),
    };
    let piece = paginate(lines, part, status.last_event_seq.max(after));
    let text = render_log(&status, &piece);
    let LogPage { lines, next_cursor: next, remaining: more, skipped: earlier } = piece;
    let value = LogsOutput {
        run: status.run.to_string(),
        phase: status.phase.name().to_owned(),
        lines,
        next_cursor: next,
        remaining: more,
        skipped: earlier,
    };
    Ok(ToolOutput { text, value })
}
