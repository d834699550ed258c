//! What a person is told when something cannot be done: what, why, what next.

use orchestrator_contract::Reason;
use orchestrator_contract::task::FieldError;

/// A refusal or failure of the dispatcher itself, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{message}. {next}")]
pub struct Error {
    reason: Reason,
    message: String,
    next: String,
}

impl Error {
    /// A problem with the reason's own hint as the next step.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), next: reason.hint().to_owned() }
    }

    /// The same problem with a next step that fits the case better.
    #[must_use]
    pub fn with_hint(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// A request that cannot be carried out as it is.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidTask, message)
    }

    /// A configuration that cannot be used as it is.
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidConfiguration, message)
    }

    /// Nobody reads the result any more (`| head`): a reason to end, not a failure.
    #[must_use]
    pub fn broken_pipe() -> Self {
        Self::new(Reason::Completed, "nobody reads the result any more")
    }

    /// Every fault of a task, in one line.
    #[must_use]
    pub fn from_field_errors(faults: &[FieldError]) -> Self {
        let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Self::invalid_request(format!("the task is not valid: {}", all.join("; ")))
    }

    /// What is wrong, without the next step.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.next
    }

    /// Why, in the contract's words.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The exit code that says so.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.reason.exit_code()
    }
}
