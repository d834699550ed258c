//! A problem of a pod, as a reason of the contract.

use orchestrator_contract::Reason;

/// A problem that the cluster reports about a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodProblem {
    /// The matching reason of the contract.
    pub reason: Reason,
    /// Message of the cluster.
    pub message: String,
    /// Whether waiting cannot help, so that the run fails.
    pub terminal: bool,
    /// Advice that fits better than that of the reason.
    pub hint: Option<&'static str>,
}

impl PodProblem {
    pub(super) fn new(reason: Reason, message: impl Into<String>, terminal: bool) -> Self {
        Self { reason, message: message.into(), terminal, hint: None }
    }

    pub(super) fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// Returns advice on what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.hint.unwrap_or_else(|| self.reason.hint())
    }
}
