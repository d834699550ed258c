//! `stop_task`.

use std::time::Duration;

use jiff::Timestamp;

use super::output::ToolOutput;
use crate::mcp::arguments::StopArguments;
use crate::mcp::outputs::{RunSummary, StopOutput};
use crate::mcp::select::{ToolError, select_run};
use crate::mcp::server::Server;
use crate::mcp::text::render_stop;
use crate::operations::StopOutcome;
use crate::task::selection::Purpose;
use crate::task::stop_mode::StopMode;

/// Maximum wait for the end: the call must return within two seconds, and saving may take minutes.
const STOP_TIMEOUT: Duration = Duration::from_millis(1_500);

pub(super) async fn stop(
    server: &Server,
    arguments: &StopArguments,
) -> Result<ToolOutput<StopOutput>, ToolError> {
    let dispatcher = server.dispatcher()?;
    let run = select_run(&dispatcher, &arguments.run_arguments(), Purpose::Stop).await?.run;
    let mode = if arguments.now { StopMode::Now } else { StopMode::Graceful };
    let outcome = dispatcher.stop(&run, mode, STOP_TIMEOUT, |_| {}).await?;
    let (state, was_active, status) = match outcome {
        StopOutcome::AlreadyFinished(status) => ("already_finished", false, status),
        StopOutcome::Stopped(status) => ("stopped", true, status),
        StopOutcome::Requested(status) => ("stopping", true, status),
    };
    Ok(ToolOutput {
        text: render_stop(&status, was_active, !arguments.now, Timestamp::now()),
        value: StopOutput { state: state.to_owned(), run: RunSummary::from(&*status) },
    })
}
