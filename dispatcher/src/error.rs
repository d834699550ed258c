//! The error of the dispatcher: reason, message and hint.

use orchestrator_contract::Reason;
use orchestrator_contract::task::FieldError;

use crate::task::advice::Advice;

/// Error of the dispatcher itself; displays the message without the hint.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    reason: Reason,
    message: String,
    hint: Advice,
}

impl Error {
    /// Creates an error with the reason's own hint.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), hint: Advice::Resolve(reason) }
    }

    /// Replaces the hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Advice>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Names the place that the refused value came from, such as a flag.
    #[must_use]
    pub fn in_place(mut self, place: &str) -> Self {
        self.message = format!("`{place}`: {}", self.message);
        self
    }

    /// Creates an error about the request or its arguments.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidTask, message)
    }

    /// Creates an error about the configuration.
    #[must_use]
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidConfiguration, message)
    }

    /// Creates the error for a closed stdout (`| head`): exits with 0 and is not printed.
    #[must_use]
    pub fn broken_pipe() -> Self {
        Self::new(Reason::Completed, "stdout was closed by its reader")
    }

    /// Creates one error from all validation errors of a task.
    #[must_use]
    pub fn from_field_errors(errors: &[FieldError]) -> Self {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self::invalid_request(format!("invalid task: {}", all.join("; ")))
    }

    /// Returns what failed, on which object and why.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &Advice {
        &self.hint
    }

    /// Returns the reason, which fixes the exit code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns the exit code of the reason.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.reason.exit_code()
    }
}

/// Joins an error and its sources with `: `, skipping repeated text.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}
