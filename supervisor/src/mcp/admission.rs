//! Limits how many servers a conversation can start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of connections of one conversation to one server at the same time.
pub(super) const MAX_CONNECTIONS: usize = 4;

/// Maximum number of servers that one conversation starts of each kind in [`WINDOW`].
pub(super) const MAX_STARTS: usize = 30;

/// The time in which starts are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Why a connection gets no server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{MAX_CONNECTIONS} connections to this MCP server are open; close one first")]
    TooManyConnections,
    #[error("this MCP server was started {MAX_STARTS} times within a minute; try again in a minute")]
    TooManyStarts,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    starts: VecDeque<Instant>,
}

/// Counts the connections of one conversation to one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<Mutex<State>>);

/// An admitted connection; dropping it makes room for another one.
#[derive(Debug)]
pub(super) struct Permit(Admission);

impl Admission {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection, or returns why not.
    pub(super) fn admit(&self, now: Instant) -> Result<Permit, Refusal> {
        let mut state = self.state();
        while state.starts.front().is_some_and(|start| now.saturating_duration_since(*start) >= WINDOW) {
            state.starts.pop_front();
        }
        if state.open >= MAX_CONNECTIONS {
            return Err(Refusal::TooManyConnections);
        }
        if state.starts.len() >= MAX_STARTS {
            return Err(Refusal::TooManyStarts);
        }
        state.open += 1;
        state.starts.push_back(now);
        drop(state);
        Ok(Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = state.open.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_starts_are_limited() {
        let admission = Admission::default();
        let now = Instant::now();
        let open: Vec<_> = (0..MAX_CONNECTIONS).map(|_| admission.admit(now).unwrap()).collect();
        assert_eq!(admission.admit(now).unwrap_err(), Refusal::TooManyConnections);
        drop(open);
        for _ in MAX_CONNECTIONS..MAX_STARTS {
            drop(admission.admit(now).unwrap());
        }
        assert_eq!(admission.admit(now).unwrap_err(), Refusal::TooManyStarts);
        drop(admission.admit(now + WINDOW).unwrap());
    }
}
