//! Waits for the end of the model's usage limit, and records what people read about it.

use std::time::Duration;

use orchestrator_contract::Step;

use super::EventLoop;
use super::quota_wait::QuotaWait;
use crate::run::{RunEnd, RunEvent};

impl EventLoop {
    /// Starts the timer of a wait, which costs no run time.
    pub(super) fn start_quota_wait(&mut self, duration: Duration) {
        let wait = QuotaWait::start(duration);
        self.context.clock.pause();
        let text = wait.activity();
        self.context.journal.info(text.clone());
        self.report.set_activity(&text);
        self.quota_wait = Some(wait);
        self.publish_progress_now();
    }

    /// Ends the wait, if there is one.
    pub(super) fn end_quota_wait(&mut self) {
        let Some(wait) = self.quota_wait.take() else { return };
        self.context.clock.resume();
        self.report.notes.push(wait.note());
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
