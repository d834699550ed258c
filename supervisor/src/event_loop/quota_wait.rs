//! Timer of a wait for the end of the model's usage limit.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use orchestrator_contract::figures;

use crate::agent::exit::UsageLimit;

/// A wait for the end of a usage limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotaWait {
    since: Instant,
    duration: Duration,
    /// The same end in wall-clock time: a suspended machine need not wait again.
    ends_at: Timestamp,
}

impl QuotaWait {
    pub(super) fn start(duration: Duration) -> Self {
        let now = Timestamp::now();
        let ends_at = SignedDuration::try_from(duration).ok().and_then(|wait| now.checked_add(wait).ok());
        Self { since: Instant::now(), duration, ends_at: ends_at.unwrap_or(Timestamp::MAX) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() >= self.duration || Timestamp::now() >= self.ends_at
    }

    /// Returns the activity that people read meanwhile.
    pub(super) fn activity(&self) -> String {
        format!("waiting for the model's usage limit until {}", self.ends_at.strftime("%H:%M UTC"))
    }

    /// Returns the note about a wait that has ended.
    pub(super) fn note(&self) -> String {
        let waited = figures::duration(self.since.elapsed().as_secs_f64());
        format!("the run waited {waited} for a usage limit of the model")
    }
}

/// Returns the time until a usage limit ends, if that is known.
pub(super) fn time_until_end(limit: UsageLimit) -> Option<Duration> {
    let until = limit.ends_at?.duration_since(Timestamp::now());
    Some(Duration::try_from(until).unwrap_or_default())
}
