//! Time budgets: how long a supervisor takes to end a run, and how long a platform waits for it.

/// Time for the agent to exit after SIGTERM, in seconds (default).
pub const AGENT_GRACE_SECONDS: u32 = 10;

/// Maximum duration of each step after the agent: save, push, pull request; in seconds (default).
pub const PUBLISH_TIMEOUT_SECONDS: u32 = 600;

/// Maximum duration of the pull request step, in seconds.
pub const PULL_REQUEST_TIMEOUT_SECONDS: u32 = 240;

/// Time for everything else that ends a run, such as writing the outcome; in seconds.
pub const SHUTDOWN_SECONDS: u32 = 50;

/// Time to pull an image, in seconds.
pub const IMAGE_PULL_SECONDS: u32 = 600;

/// `terminationGracePeriodSeconds` of a pod: the time between SIGTERM and SIGKILL.
pub const POD_TERMINATION_GRACE_PERIOD_SECONDS: u32 = 120;

/// Part of the pod's grace period that is reserved for reporting the outcome, in seconds.
pub const POD_REPORT_SECONDS: u32 = 20;

/// Time in a pod from the first stop request until the push is skipped, in seconds.
pub const POD_STOP_TIMEOUT_SECONDS: u32 = POD_TERMINATION_GRACE_PERIOD_SECONDS - POD_REPORT_SECONDS;

/// Upper bound for publishing with the default timeouts, in seconds: saving, pushing, keeping the work
/// in the workspace if the push failed, and opening the pull request.
pub const PUBLISH_SECONDS: u32 = 3 * PUBLISH_TIMEOUT_SECONDS + PULL_REQUEST_TIMEOUT_SECONDS;

/// Returns the time that a supervisor without a stop timeout takes after a graceful stop, in seconds.
#[must_use]
pub fn graceful_stop_seconds(agent_grace_seconds: f64, publish_timeout_seconds: f64) -> f64 {
    agent_grace_seconds
        + publish_timeout_seconds
        + f64::from(PULL_REQUEST_TIMEOUT_SECONDS)
        + f64::from(SHUTDOWN_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_budget_fits_pod_grace_period() {
        let [period, stop, report] =
            [POD_TERMINATION_GRACE_PERIOD_SECONDS, POD_STOP_TIMEOUT_SECONDS, POD_REPORT_SECONDS];
        assert!(stop + report <= period, "{stop} + {report} <= {period}");
        // The agent exits well before the stop timeout, so that its work can be saved and pushed.
        assert!(2 * AGENT_GRACE_SECONDS <= stop, "{stop}");
        // The second stop request kills the agent and skips the push; what remains is the report.
        assert!(AGENT_GRACE_SECONDS <= report, "{report}");
    }

    #[test]
    fn default_graceful_stop_takes_fifteen_minutes() {
        let [grace, publish] = [AGENT_GRACE_SECONDS, PUBLISH_TIMEOUT_SECONDS].map(f64::from);
        assert_eq!(graceful_stop_seconds(grace, publish), 900.0);
    }
}
