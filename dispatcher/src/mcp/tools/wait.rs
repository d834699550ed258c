//! `wait_for_task`.

use std::time::Duration;

use jiff::Timestamp;
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::output::ToolOutput;
use crate::error::Error;
use crate::mcp::arguments::WaitArguments;
use crate::mcp::outputs::{RunSummary, WaitOutput};
use crate::mcp::select::{ToolError, select_run};
use crate::mcp::server::Server;
use crate::mcp::text::render_wait;
use crate::operations::WaitOutcome;
use crate::task::selection::Purpose;
use crate::task::text::render_progress;

/// Default timeout in seconds.
const DEFAULT_SECONDS: f64 = 30.0;

/// Maximum timeout in seconds: clients abort calls after a minute.
const MAX_SECONDS: f64 = 45.0;

/// Interval of progress notifications without changes, so that clients do not time out.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn wait(
    server: &Server,
    arguments: &WaitArguments,
    context: RequestContext<RoleServer>,
) -> Result<ToolOutput<WaitOutput>, ToolError> {
    let seconds = arguments.timeout_seconds.unwrap_or(DEFAULT_SECONDS);
    let timeout = Duration::try_from_secs_f64(seconds.min(MAX_SECONDS)).map_err(|_| {
        Error::invalid_request(format!(
            "invalid `timeout_seconds`: expected a number from 0 to 45, not {seconds}"
        ))
        .with_hint("Call again to wait longer.")
    })?;
    let dispatcher = server.dispatcher()?;
    let start = Instant::now();
    let run = select_run(&dispatcher, &arguments.run_arguments(), Purpose::Inspect).await?.run;
    // The timeout includes the selection of the run.
    let timeout = timeout.saturating_sub(start.elapsed());
    let (progress_tx, progress_rx) = watch::channel(String::new());
    let waiting = dispatcher.wait(&run, Some(timeout), move |status| {
        let line = render_progress(status);
        progress_tx.send_if_modified(|last| {
            let changed = *last != line;
            *last = line;
            changed
        });
    });
    let closing = server.closing();
    let token = context.meta.get_progress_token();
    let outcome = tokio::select! {
        outcome = waiting => outcome?,
        () = notify_progress(context.peer, token, progress_rx, timeout) => return Err(client_gone()),
        () = context.ct.cancelled() => return Err(client_gone()),
        () = closing.cancelled() => return Err(client_gone()),
    };
    let (WaitOutcome::Finished(status) | WaitOutcome::TimedOut(status)) = outcome;
    Ok(ToolOutput {
        text: render_wait(&status, start.elapsed().as_secs(), Timestamp::now()),
        value: WaitOutput { finished: status.phase.is_final(), run: RunSummary::from(&*status) },
    })
}

/// Creates the error for a canceled call.
fn client_gone() -> ToolError {
    Error::invalid_request("the wait was canceled; the run continues")
        .with_hint("Call `wait_for_task` again.")
        .into()
}

/// Notifies the client of each change, and at least every [`PROGRESS_INTERVAL`]; never returns.
async fn notify_progress(
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    mut progress_rx: watch::Receiver<String>,
    timeout: Duration,
) {
    let Some(token) = token else { return std::future::pending().await };
    let start = Instant::now();
    let mut ticks = interval(PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_closed = false;
    loop {
        tokio::select! {
            changed = progress_rx.changed(), if !is_closed => is_closed = changed.is_err(),
            _ = ticks.tick() => {}
        }
        let message = progress_rx.borrow_and_update().clone();
        if message.is_empty() {
            continue;
        }
        // Progress must increase: report elapsed seconds.
        let progress = ProgressNotificationParam::new(token.clone(), start.elapsed().as_secs_f64())
            .with_total(timeout.as_secs_f64())
            .with_message(message);
        // Keep waiting if a notification fails.
        drop(peer.notify_progress(progress).await);
    }
}
