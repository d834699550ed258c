//! `wait_for_task`.

use std::time::Duration;

use jiff::Timestamp;
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::ToolOutput;
use crate::error::Error;
use crate::mcp::arguments::WaitArguments;
use crate::mcp::outputs::{RunSummary, WaitOutput};
use crate::mcp::select::{ToolError, which};
use crate::mcp::server::Server;
use crate::mcp::text::render_wait;
use crate::operations::WaitOutcome;
use crate::task::selection::Purpose;
use crate::task::text::render_progress;

/// How long is waited if nobody says otherwise, in seconds.
const DEFAULT_SECONDS: f64 = 30.0;

/// How long is waited at most, in seconds: clients give up on a call after a minute.
const MAX_SECONDS: f64 = 45.0;

/// How often progress is told while nothing changes, so that no client takes silence for an end.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn wait(
    server: &Server,
    arguments: &WaitArguments,
    context: RequestContext<RoleServer>,
) -> Result<ToolOutput<WaitOutput>, ToolError> {
    let seconds = arguments.timeout_seconds.unwrap_or(DEFAULT_SECONDS);
    let limit = Duration::try_from_secs_f64(seconds.min(MAX_SECONDS)).map_err(|_| {
        Error::invalid_request(format!("timeout_seconds: {seconds} is no time to wait"))
            .with_hint("Give 0 to 45 seconds.")
    })?;
    let dispatcher = server.dispatcher()?;
    let begin = Instant::now();
    let run = which(&dispatcher, &arguments.which(), Purpose::Inspect).await?.run;
    // Finding the run counts as well.
    let limit = limit.saturating_sub(begin.elapsed());
    let (say, said) = watch::channel(String::new());
    let waiting = dispatcher.wait(&run, Some(limit), move |status| {
        let line = render_progress(status);
        say.send_if_modified(|last| {
            let changed = *last != line;
            *last = line;
            changed
        });
    });
    let closing = server.closing();
    let end = tokio::select! {
        end = waiting => end?,
        () = tell(context.peer, context.meta.get_progress_token(), said, limit) => return Err(client_gone()),
        () = context.ct.cancelled() => return Err(client_gone()),
        () = closing.cancelled() => return Err(client_gone()),
    };
    let (WaitOutcome::Finished(status) | WaitOutcome::TimedOut(status)) = end;
    Ok(ToolOutput {
        text: render_wait(&status, begin.elapsed().as_secs(), Timestamp::now()),
        value: WaitOutput { finished: status.phase.is_final(), run: RunSummary::from(&*status) },
    })
}

/// The client does not want the answer any more.
fn client_gone() -> ToolError {
    Error::invalid_request("waiting was broken off; the run goes on")
        .with_hint("Call `wait_for_task` again.")
        .into()
}

/// Tells the client each change, and at least every [`PULSE`]; never ends.
async fn tell(
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    mut said: watch::Receiver<String>,
    limit: Duration,
) {
    let Some(token) = token else { return std::future::pending().await };
    let start = Instant::now();
    let mut pulse = interval(PROGRESS_INTERVAL);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gone = false;
    loop {
        tokio::select! {
            changed = said.changed(), if !gone => gone = changed.is_err(),
            _ = pulse.tick() => {}
        }
        let message = said.borrow_and_update().clone();
        if message.is_empty() {
            continue;
        }
        // Seconds: they always grow, as progress must.
        let progress = ProgressNotificationParam::new(token.clone(), start.elapsed().as_secs_f64())
            .with_total(limit.as_secs_f64())
            .with_message(message);
        // A client that does not listen is no reason to stop waiting.
        drop(peer.notify_progress(progress).await);
    }
}
