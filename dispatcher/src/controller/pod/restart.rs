//! Sidecars that the kubelet restarted.

use k8s_openapi::api::core::v1::Pod;

/// A sidecar that ended and was started again. The run goes on: its supervisor decides what that means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Restart {
    /// Name of the container.
    pub container: String,
    /// Why it ended the last time, as the container runtime says: `OOMKilled`, `Error`, `Completed`.
    pub reason: String,
    /// Exit code of the last time.
    pub exit_code: Option<i32>,
    /// How often it was restarted.
    pub count: i32,
}

/// Returns the sidecars of a pod that were restarted.
#[must_use]
pub fn restarts(pod: &Pod) -> Vec<Restart> {
    let statuses = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let restarted = statuses.filter(|status| status.restart_count > 0);
    let restarted = restarted.map(|status| {
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let reason = last.and_then(|last| last.reason.clone());
        Restart {
            container: status.name.clone(),
            // The API server refuses a condition with another reason.
            reason: reason.filter(|reason| is_reason(reason)).unwrap_or_else(|| "Error".to_owned()),
            exit_code: last.map(|last| last.exit_code),
            count: status.restart_count,
        }
    });
    restarted.collect()
}

/// Returns whether a text can be the reason of a condition.
fn is_reason(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.len() <= 100
        && text.chars().all(|c| c.is_ascii_alphanumeric())
}

impl std::fmt::Display for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { container, reason, exit_code, count } = self;
        let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
        write!(f, "container `{container}` was restarted {times}: {reason}")?;
        exit_code.map_or(Ok(()), |code| write!(f, ", exit code {code}"))
    }
}
