//! When the agent has had enough: time, silence, turns, cost. Pure: `now` is an argument.

use std::time::Duration;

use orchestrator_contract::task::Limits;

use crate::run::Limit;

/// A result followed by no exit: the result stands, the process is killed after this long.
pub const AFTER_RESULT: Duration = Duration::from_secs(30);

/// The limits of a run, on a clock that starts with the run.
#[derive(Clone, Debug)]
pub struct Watchdog {
    time: Duration,
    silence: Duration,
    turns: Option<u32>,
    cost_usd: Option<f64>,
}

/// What is known of the agent at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Since the start of the run.
    pub elapsed: Duration,
    /// Since the agent's last output; none while no agent runs.
    pub silent: Option<Duration>,
    /// Turns of all conversations of this attempt.
    pub turns: u32,
    /// US dollars of this attempt.
    pub cost_usd: f64,
}

impl Watchdog {
    /// The watchdog of a task's limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let Limits { minutes, silence_minutes, turns, cost_usd, queue_minutes: _, verify_minutes: _ } =
            limits;
        let minutes_to = |minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX);
        Self {
            time: minutes_to(*minutes),
            silence: minutes_to(*silence_minutes),
            turns: *turns,
            cost_usd: *cost_usd,
        }
    }

    /// Which limit is reached, if any.
    #[must_use]
    pub fn reached(&self, seen: Seen) -> Option<Limit> {
        let Seen { elapsed, silent, turns, cost_usd } = seen;
        if elapsed >= self.time {
            Some(Limit::Time)
        } else if silent.is_some_and(|silent| silent >= self.silence) {
            Some(Limit::Silence)
        } else if self.cost_usd.is_some_and(|limit| cost_usd >= limit) {
            Some(Limit::Cost)
        } else if self.turns.is_some_and(|limit| turns > limit) {
            Some(Limit::Turns)
        } else {
            None
        }
    }

    /// How long until time or silence can be reached if nothing happens.
    #[must_use]
    pub fn next_look(&self, seen: Seen) -> Duration {
        let until_time = self.time.saturating_sub(seen.elapsed);
        let until_silence = seen.silent.map_or(Duration::MAX, |silent| self.silence.saturating_sub(silent));
        until_time.min(until_silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog() -> Watchdog {
        Watchdog::new(&Limits {
            minutes: 10.0,
            silence_minutes: 1.0,
            turns: Some(5),
            cost_usd: Some(2.0),
            ..Limits::default()
        })
    }

    #[test]
    fn each_limit_is_reached_by_its_own_measure() {
        let seconds = Duration::from_secs;
        let calm = Seen { elapsed: seconds(599), silent: Some(seconds(59)), turns: 5, cost_usd: 1.99 };
        assert_eq!(watchdog().reached(calm), None);
        assert_eq!(watchdog().reached(Seen { elapsed: seconds(600), ..calm }), Some(Limit::Time));
        assert_eq!(watchdog().reached(Seen { silent: Some(seconds(60)), ..calm }), Some(Limit::Silence));
        assert_eq!(watchdog().reached(Seen { cost_usd: 2.0, ..calm }), Some(Limit::Cost));
        assert_eq!(watchdog().reached(Seen { turns: 6, ..calm }), Some(Limit::Turns));
    }

    #[test]
    fn no_agent_is_never_too_silent() {
        let seen = Seen { elapsed: Duration::from_secs(300), ..Seen::default() };
        assert_eq!(watchdog().reached(seen), None);
        assert_eq!(watchdog().next_look(seen), Duration::from_secs(300));
    }
}
