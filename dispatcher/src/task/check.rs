//! What a check found.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub finding: Finding,
    /// It in words.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It is as it should be.
    Ok,
    /// Some runs will miss it.
    Warning,
    /// No run can do without it.
    Problem,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, finding: Finding::Ok, message: message.into(), mend: None }
    }

    /// Something is not.
    #[must_use]
    pub fn bad(
        name: &'static str,
        finding: Finding,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, finding, message: message.into(), mend: Some(mend.into()) }
    }
}
