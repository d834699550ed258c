//! `stop_task`.

use std::time::Duration;

use jiff::Timestamp;

use super::ToolOutput;
use crate::mcp::arguments::StopArguments;
use crate::mcp::outputs::{RunSummary, StopOutput};
use crate::mcp::select::{ToolError, which};
use crate::mcp::server::Server;
use crate::mcp::text::render_stop;
use crate::operations::StopOutcome;
use crate::task::selection::Purpose;
use crate::task::stop_mode::StopMode;

/// How long the end is waited for: an answer is due within two seconds, and saving may take minutes.
const LIMIT: Duration = Duration::from_millis(1_500);

pub(super) async fn stop(
    server: &Server,
    arguments: &StopArguments,
) -> Result<ToolOutput<StopOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let run = which(&dispatcher, &arguments.which(), Purpose::Stop).await?.run;
    let manner = if arguments.now { StopMode::Now } else { StopMode::Graceful };
    let end = dispatcher.stop(&run, manner, LIMIT, |_| {}).await?;
    let (state, was_at_work, status) = match end {
        StopOutcome::AlreadyFinished(status) => ("already_finished", false, status),
        StopOutcome::Stopped(status) => ("stopped", true, status),
        StopOutcome::Requested(status) => ("stopping", true, status),
    };
    Ok(ToolOutput {
        text: render_stop(&status, was_at_work, !arguments.now, Timestamp::now()),
        value: StopOutput { state: state.to_owned(), run: RunSummary::from(&*status) },
    })
}
