//! Clock of a run. It starts when the run holds the workspace: waiting for it costs no run time, and
//! neither does a pause.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Clock of a run; clones share it.
#[derive(Clone, Debug, Default)]
pub struct RunClock {
    started: Arc<OnceLock<Instant>>,
    pauses: Arc<Mutex<Pauses>>,
}

#[derive(Debug, Default)]
struct Pauses {
    /// Total of the pauses that ended.
    ended: Duration,
    /// Start of the current pause.
    since: Option<Instant>,
}

impl RunClock {
    /// Starts the clock, unless it runs already.
    pub fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    /// Pauses the clock, unless it is paused already.
    pub fn pause(&self) {
        self.pauses().since.get_or_insert_with(Instant::now);
    }

    /// Ends the pause, if there is one.
    pub fn resume(&self) {
        let mut pauses = self.pauses();
        if let Some(since) = pauses.since.take() {
            pauses.ended += since.elapsed();
        }
    }

    /// Returns the time since the start, without pauses; zero before it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let Some(started) = self.started.get() else { return Duration::ZERO };
        let pauses = self.pauses();
        let until = pauses.since.unwrap_or_else(Instant::now);
        until.saturating_duration_since(*started).saturating_sub(pauses.ended)
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_starts_once() {
        let clock = RunClock::default();
        let shared = clock.clone();
        assert_eq!(clock.elapsed(), Duration::ZERO);
        shared.start();
        let first = clock.started.get().copied();
        assert!(first.is_some());
        clock.start();
        assert_eq!(clock.started.get().copied(), first);
    }

    #[test]
    fn paused_clock_stands_still() {
        let clock = RunClock::default();
        clock.start();
        clock.pause();
        let paused = clock.elapsed();
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        clock.pause();
        assert_eq!(clock.elapsed(), paused, "a second pause is none");
        clock.resume();
        let running = clock.elapsed();
        let total = clock.started.get().unwrap().elapsed();
        assert!(running + Duration::from_millis(2) <= total, "{running:?} of {total:?}");
        clock.resume();
        assert!(clock.elapsed() >= paused);
    }
}
