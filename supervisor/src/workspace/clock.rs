//! Clock of a run. It starts when the run holds the workspace: waiting for it costs no run time.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Clock of a run; clones share it.
#[derive(Clone, Debug, Default)]
pub struct RunClock {
    started: Arc<OnceLock<Instant>>,
}

impl RunClock {
    /// Starts the clock, unless it runs already.
    pub fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    /// Returns the time since the start; zero before it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.get().map(Instant::elapsed).unwrap_or_default()
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
}
