//! When the agent has had enough: time, silence, turns, cost. Pure: `now` is an argument.

use std::time::Duration;

use orchestrator_contract::task::Limits;

use crate::run::Limit;

/// A result followed by no exit: the result stands, the process is killed after this long.
pub const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

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
pub struct AgentActivity {
    /// Since the start of the run.
    pub elapsed: Duration,
    /// Since the agent's last output; none while no agent runs.
    pub idle: Option<Duration>,
    /// Turns of all conversations of this attempt.
    pub turns: u32,
    /// US dollars of this attempt.
    pub cost_usd: f64,
}

impl Watchdog {
    /// The watchdog of a task's limits.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let Limits {
            timeout_minutes: minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes: _,
            verify_minutes: _,
        } = limits;
        let minutes_to = |minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX);
        Self {
            time: minutes_to(*minutes),
            silence: minutes_to(*idle_minutes),
            turns: *turns,
            cost_usd: *cost_usd,
        }
    }

    /// Which limit is reached, if any.
    #[must_use]
    pub fn exceeded(&self, seen: AgentActivity) -> Option<Limit> {
        let AgentActivity { elapsed, idle: silent, turns, cost_usd } = seen;
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
    pub fn next_deadline(&self, seen: AgentActivity) -> Duration {
        let until_time = self.time.saturating_sub(seen.elapsed);
        let until_silence = seen.idle.map_or(Duration::MAX, |silent| self.silence.saturating_sub(silent));
        until_time.min(until_silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog() -> Watchdog {
        Watchdog::new(&Limits {
            timeout_minutes: 10.0,
            idle_minutes: 1.0,
            turns: Some(5),
            cost_usd: Some(2.0),
            ..Limits::default()
        })
    }

    #[test]
    fn watchdog_reports_limit_that_was_exceeded() {
        let seconds = Duration::from_secs;
        let calm = AgentActivity { elapsed: seconds(599), idle: Some(seconds(59)), turns: 5, cost_usd: 1.99 };
        assert_eq!(watchdog().exceeded(calm), None);
        assert_eq!(watchdog().exceeded(AgentActivity { elapsed: seconds(600), ..calm }), Some(Limit::Time));
        assert_eq!(
            watchdog().exceeded(AgentActivity { idle: Some(seconds(60)), ..calm }),
            Some(Limit::Silence)
        );
        assert_eq!(watchdog().exceeded(AgentActivity { cost_usd: 2.0, ..calm }), Some(Limit::Cost));
        assert_eq!(watchdog().exceeded(AgentActivity { turns: 6, ..calm }), Some(Limit::Turns));
    }

    #[test]
    fn watchdog_without_agent_ignores_idle_limit() {
        let seen = AgentActivity { elapsed: Duration::from_secs(300), ..AgentActivity::default() };
        assert_eq!(watchdog().exceeded(seen), None);
        assert_eq!(watchdog().next_deadline(seen), Duration::from_secs(300));
    }
}
