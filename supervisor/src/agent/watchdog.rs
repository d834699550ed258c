//! The limits of a run: time, idle time, turns, cost. Pure: the elapsed time is an argument.

use std::time::Duration;

use orchestrator_contract::task::Limits;

use crate::run::Limit;

/// How long the agent CLI may take to exit after its result; then it is killed.
pub const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Watchdog {
    time: Duration,
    idle: Duration,
    turns: Option<u32>,
    cost_usd: Option<f64>,
}

/// What a run has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgentActivity {
    /// Time since the start of the run.
    pub elapsed: Duration,
    /// Time since the agent's last output; `None` while no agent runs.
    pub idle: Option<Duration>,
    /// Turns of all sessions of this attempt.
    pub turns: u32,
    /// Cost of this attempt in US dollars.
    pub cost_usd: f64,
}

impl Watchdog {
    /// Creates a watchdog with the limits of a task.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let Limits {
            timeout_minutes: minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes: _,
            verify_minutes: _,
            wait_for_quota_minutes: _,
        } = limits;
        let duration_of = |minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX);
        Self {
            time: duration_of(*minutes),
            idle: duration_of(*idle_minutes),
            turns: *turns,
            cost_usd: *cost_usd,
        }
    }

    /// Returns the first limit that is exceeded.
    #[must_use]
    pub fn exceeded(&self, activity: AgentActivity) -> Option<Limit> {
        let AgentActivity { elapsed, idle, turns, cost_usd } = activity;
        if elapsed >= self.time {
            Some(Limit::Time)
        } else if idle.is_some_and(|idle| idle >= self.idle) {
            Some(Limit::Silence)
        } else if self.cost_usd.is_some_and(|limit| cost_usd >= limit) {
            Some(Limit::Cost)
        } else if self.turns.is_some_and(|limit| turns > limit) {
            Some(Limit::Turns)
        } else {
            None
        }
    }

    /// Returns the time until the time limit or the idle limit is exceeded at the earliest.
    #[must_use]
    pub fn next_deadline(&self, activity: AgentActivity) -> Duration {
        let until_time = self.time.saturating_sub(activity.elapsed);
        let until_idle = activity.idle.map_or(Duration::MAX, |idle| self.idle.saturating_sub(idle));
        until_time.min(until_idle)
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
        let below =
            AgentActivity { elapsed: seconds(599), idle: Some(seconds(59)), turns: 5, cost_usd: 1.99 };
        assert_eq!(watchdog().exceeded(below), None);
        assert_eq!(watchdog().exceeded(AgentActivity { elapsed: seconds(600), ..below }), Some(Limit::Time));
        assert_eq!(
            watchdog().exceeded(AgentActivity { idle: Some(seconds(60)), ..below }),
            Some(Limit::Silence)
        );
        assert_eq!(watchdog().exceeded(AgentActivity { cost_usd: 2.0, ..below }), Some(Limit::Cost));
        assert_eq!(watchdog().exceeded(AgentActivity { turns: 6, ..below }), Some(Limit::Turns));
    }

    #[test]
    fn watchdog_without_agent_ignores_idle_limit() {
        let activity = AgentActivity { elapsed: Duration::from_secs(300), ..AgentActivity::default() };
        assert_eq!(watchdog().exceeded(activity), None);
        assert_eq!(watchdog().next_deadline(activity), Duration::from_secs(300));
    }
}
