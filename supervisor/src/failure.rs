//! Failures of a run: the contract's reason and the message that people read.

use std::error::Error;
use std::path::Path;

use orchestrator_contract::Reason;

/// A failed step or run, with its reason and message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    pub reason: Reason,
    /// What failed, on which object and why, in one line. The reason's hint is not part of it.
    pub message: String,
}

impl Failure {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Creates a failure from an error and its sources.
    #[must_use]
    pub fn from_error(reason: Reason, error: &dyn Error) -> Self {
        Self::new(reason, error_chain(error))
    }

    /// Creates a failure from an I/O error on a path.
    #[must_use]
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::new(io_reason(error), format!("cannot use `{}`: {error}", path.display()))
    }
}

/// Returns an error and its sources in one line, joined with `: `.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some errors repeat their source.
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}

/// Returns the reason for an I/O error whose caller has no better one.
#[must_use]
pub fn io_reason(error: &std::io::Error) -> Reason {
    use std::io::ErrorKind;
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        Reason::DiskFull
    } else if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        Reason::WorkspaceUnwritable
    } else {
        Reason::IoError
    }
}
