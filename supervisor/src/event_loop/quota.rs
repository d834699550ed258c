//! Wait for the end of the model's usage limit: its timer, and what people read about it.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use orchestrator_contract::{Step, figures};

use super::EventLoop;
use crate::agent::exit::UsageLimit;
use crate::run::{RunEnd, RunEvent};

/// A wait for the end of a usage limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotaWait {
    since: Instant,
    duration: Duration,
    /// The same end in wall-clock time: a suspended machine need not wait again.
    ends_at: Timestamp,
}

impl QuotaWait {
    fn start(duration: Duration) -> Self {
        let now = Timestamp::now();
        let ends_at = SignedDuration::try_from(duration).ok().and_then(|wait| now.checked_add(wait).ok());
        Self { since: Instant::now(), duration, ends_at: ends_at.unwrap_or(Timestamp::MAX) }
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() >= self.duration || Timestamp::now() >= self.ends_at
    }
}

/// Returns the time until a usage limit ends, if that is known.
pub(super) fn time_until_end(limit: UsageLimit) -> Option<Duration> {
    let until = limit.ends_at?.duration_since(Timestamp::now());
    Some(Duration::try_from(until).unwrap_or_default())
}

impl EventLoop {
    /// Starts the timer of a wait, which costs no run time.
    pub(super) fn start_quota_wait(&mut self, duration: Duration) {
        let wait = QuotaWait::start(duration);
        self.context.clock.pause();
        let text =
            format!("waiting for the model's usage limit until {}", wait.ends_at.strftime("%H:%M UTC"));
        self.context.journal.info(text.clone());
        self.report.set_activity(&text);
        self.quota_wait = Some(wait);
        self.publish_progress_now();
    }

    /// Ends the wait, if there is one.
    pub(super) fn end_quota_wait(&mut self) {
        let Some(wait) = self.quota_wait.take() else { return };
        self.context.clock.resume();
        let waited = figures::duration(wait.since.elapsed().as_secs_f64());
        self.report.notes.push(format!("the run waited {waited} for a usage limit of the model"));
    }

    /// Returns the event of an expired timer.
    pub(super) fn poll_quota_wait(&self) -> Option<RunEvent> {
        self.quota_wait.as_ref().filter(|wait| wait.is_over()).map(|_| RunEvent::QuotaWaitOver)
    }

    /// Ends the agent's step at a usage limit that the run does not wait for, or no longer.
    pub(super) fn record_usage_limit(&mut self, event: &RunEvent, before: Step) {
        let failure = if let RunEvent::UsageLimitReached(failure, _) = event { Some(failure) } else { None };
        if failure.is_none() && self.quota_wait.is_none() {
            return;
        }
        match (self.run.step() == before, failure, self.run.end()) {
            (true, Some(failure), _) => self.context.journal.warn(failure.message.clone()),
            (false, _, RunEnd::Outcome(failure)) => self.step_ended(before, Some(&failure.message)),
            (true, None, _) | (false, _, RunEnd::StoppedAfter(_)) => {}
        }
    }
}
