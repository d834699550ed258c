//! `get_task_logs`.

use super::Answer;
use crate::mcp::answers::LogsAnswer;
use crate::mcp::arguments::LogsArguments;
use crate::mcp::server::Server;
use crate::mcp::text::{Part, Piece, render_log, take};
use crate::mcp::which::{Refusal, which};
use crate::task::selection::Purpose;
use crate::task::text::{Colour, render_event};

/// How many lines are given if nobody says otherwise.
const LINES: u32 = 100;

/// How many are given at most.
const LINES_MAX: u32 = 500;

pub(super) async fn logs(server: &Server, arguments: &LogsArguments) -> Result<Answer<LogsAnswer>, Refusal> {
    let dispatcher = server.dispatcher()?;
    let run = which(&dispatcher, &arguments.which(), Purpose::Look).await?.run;
    let after = arguments.after.unwrap_or_default();
    let mut lines = Vec::new();
    let status = dispatcher
        .logs(&run, false, |event, _| {
            if event.seq > after
                && let Some(line) = render_event(event, Colour::No)
            {
                lines.push((event.seq, line));
            }
            Ok(())
        })
        .await?;
    let count = |lines: u32| usize::try_from(lines.clamp(1, LINES_MAX)).unwrap_or(usize::MAX);
    let part = match (arguments.tail, arguments.after, arguments.limit) {
        (Some(tail), ..) => Part::Last(count(tail)),
        (None, Some(_), limit) => Part::First(count(limit.unwrap_or(LINES))),
        (None, None, limit) => Part::Last(count(limit.unwrap_or(LINES))),
    };
    let piece = take(lines, part, status.last_seq.max(after));
    let text = render_log(&status, &piece);
    let Piece { lines, next, more, earlier } = piece;
    let value = LogsAnswer {
        run: status.run.to_string(),
        phase: status.phase.name().to_owned(),
        lines,
        next,
        more,
        earlier,
    };
    Ok(Answer { text, value })
}
