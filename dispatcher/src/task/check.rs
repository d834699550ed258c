//! The result of one `doctor` check.

use serde::Serialize;

use super::advice::{Advice, render_for_cli};

/// One requirement of runs, and whether it is met.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub status: CheckStatus,
    pub message: String,
    /// How to fix it, for the command line; none if the check passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Ok,
    /// Some runs will fail or lack something.
    Warning,
    /// Every run will fail.
    Error,
}

impl Check {
    /// Creates a passed check.
    #[must_use]
    pub fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, message: message.into(), fix: None }
    }

    /// Creates a failed check with its fix.
    #[must_use]
    pub fn failed(
        name: &'static str,
        status: CheckStatus,
        message: impl Into<String>,
        fix: impl Into<Advice>,
    ) -> Self {
        Self { name, status, message: message.into(), fix: Some(render_for_cli(&fix.into())) }
    }
}
