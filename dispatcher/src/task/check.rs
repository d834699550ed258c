//! What a check found.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub status: CheckStatus,
    /// It in words.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It is as it should be.
    Ok,
    /// Some runs will miss it.
    Warning,
    /// No run can do without it.
    Error,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, message: message.into(), fix: None }
    }

    /// Something is not.
    #[must_use]
    pub fn failed(
        name: &'static str,
        status: CheckStatus,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, status, message: message.into(), fix: Some(mend.into()) }
    }
}
