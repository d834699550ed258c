//! Escalation of stop requests: the first is graceful, the second stops now. Pure.
//!
//! Signals, the stop file and the stop deadline all count as requests here and nowhere else.
//! [`RunMachine`](super::RunMachine) decides what a stop means for the current step.

use std::time::{Duration, Instant};

/// How much a stopped run still does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum StopMode {
    /// Save the work and push it.
    Graceful,
    /// Save the work in the workspace and skip the push.
    Now,
}

/// Stop requests received so far.
#[derive(Clone, Debug)]
pub struct StopRequests {
    /// Time from the first request until the run stops now.
    timeout: Option<Duration>,
    requested_at: Option<Instant>,
    deadline_handled: bool,
    /// The most urgent mode of the stop file that was handled.
    file: Option<StopMode>,
}

impl StopRequests {
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, requested_at: None, deadline_handled: false, file: None }
    }

    /// Records a request: the first is graceful, every later one means now.
    pub fn request(&mut self, now: Instant) -> StopMode {
        match self.requested_at {
            Some(_) => StopMode::Now,
            None => {
                self.requested_at = Some(now);
                StopMode::Graceful
            }
        }
    }

    /// Records the content of the stop file and returns the mode if it is a new request.
    ///
    /// A file with `now` counts as two requests, so poll again after handling the first.
    pub fn poll_file(&mut self, content: Option<StopMode>, now: Instant) -> Option<StopMode> {
        if content <= self.file {
            return None;
        }
        self.file = Some(if self.file.is_none() { StopMode::Graceful } else { StopMode::Now });
        Some(self.request(now))
    }

    /// Returns `Now` once, when the timeout since the first request has passed.
    pub fn poll_deadline(&mut self, now: Instant) -> Option<StopMode> {
        let (requested_at, timeout) = self.requested_at.zip(self.timeout)?;
        if now.saturating_duration_since(requested_at) < timeout
            || std::mem::replace(&mut self.deadline_handled, true)
        {
            return None;
        }
        Some(self.request(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_request_stops_now() {
        let (mut stop, now) = (StopRequests::new(None), Instant::now());
        assert_eq!(stop.request(now), StopMode::Graceful);
        assert_eq!(stop.request(now), StopMode::Now);
        assert_eq!(stop.poll_deadline(now + Duration::from_secs(3600)), None);
    }

    #[test]
    fn stop_file_with_now_counts_as_two_requests() {
        let (mut stop, now) = (StopRequests::new(None), Instant::now());
        assert_eq!(stop.poll_file(None, now), None);
        assert_eq!(stop.poll_file(Some(StopMode::Now), now), Some(StopMode::Graceful));
        assert_eq!(stop.poll_file(Some(StopMode::Now), now), Some(StopMode::Now));
        assert_eq!(stop.poll_file(Some(StopMode::Now), now), None);
    }

    #[test]
    fn unchanged_stop_file_counts_once() {
        let (mut stop, now) = (StopRequests::new(None), Instant::now());
        assert_eq!(stop.poll_file(Some(StopMode::Graceful), now), Some(StopMode::Graceful));
        assert_eq!(stop.poll_file(Some(StopMode::Graceful), now), None);
        assert_eq!(stop.poll_file(Some(StopMode::Now), now), Some(StopMode::Now));
    }

    #[test]
    fn deadline_after_first_request_stops_now_once() {
        let (mut stop, now) = (StopRequests::new(Some(Duration::from_secs(10))), Instant::now());
        assert_eq!(stop.poll_deadline(now + Duration::from_secs(60)), None);
        assert_eq!(stop.request(now), StopMode::Graceful);
        assert_eq!(stop.poll_deadline(now + Duration::from_secs(9)), None);
        assert_eq!(stop.poll_deadline(now + Duration::from_secs(10)), Some(StopMode::Now));
        assert_eq!(stop.poll_deadline(now + Duration::from_secs(11)), None);
    }
}
