//! `wait_for_task`.

use std::time::Duration;

use jiff::Timestamp;
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Answer;
use crate::mcp::answers::{RunView, WaitAnswer};
use crate::mcp::arguments::WaitArguments;
use crate::mcp::server::Server;
use crate::mcp::text::render_wait;
use crate::mcp::which::{Refusal, which};
use crate::problem::Problem;
use crate::task::selection::Purpose;
use crate::task::text::render_progress;
use crate::verbs::Wait;

/// How long is waited if nobody says otherwise, in seconds.
const DEFAULT: f64 = 30.0;

/// How long is waited at most, in seconds: clients give up on a call after a minute.
const MAX: f64 = 45.0;

/// How often progress is told while nothing changes, so that no client takes silence for an end.
const PULSE: Duration = Duration::from_secs(5);

pub(super) async fn wait(
    server: &Server,
    arguments: &WaitArguments,
    context: RequestContext<RoleServer>,
) -> Result<Answer<WaitAnswer>, Refusal> {
    let seconds = arguments.timeout_seconds.unwrap_or(DEFAULT);
    let limit = Duration::try_from_secs_f64(seconds.min(MAX)).map_err(|_| {
        Problem::request(format!("timeout_seconds: {seconds} is no time to wait"))
            .next("Give 0 to 45 seconds.")
    })?;
    let dispatcher = server.dispatcher()?;
    let begin = Instant::now();
    let run = which(&dispatcher, &arguments.which(), Purpose::Look).await?.run;
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
        () = tell(context.peer, context.meta.get_progress_token(), said, limit) => return Err(nobody()),
        () = context.ct.cancelled() => return Err(nobody()),
        () = closing.cancelled() => return Err(nobody()),
    };
    let (Wait::Ended(status) | Wait::TimedOut(status)) = end;
    Ok(Answer {
        text: render_wait(&status, begin.elapsed().as_secs(), Timestamp::now()),
        value: WaitAnswer { ended: status.phase.is_final(), run: RunView::from(&*status) },
    })
}

/// The client does not want the answer any more.
fn nobody() -> Refusal {
    Problem::request("waiting was broken off; the run goes on").next("Call `wait_for_task` again.").into()
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
    let mut pulse = interval(PULSE);
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
