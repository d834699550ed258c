//! The termination message, which Kubernetes shows in the status of the container.

use std::path::Path;

use orchestrator_contract::Outcome;

use crate::redact::Redactor;

/// Writes a digest of the outcome if the file exists.
///
/// Kubernetes creates the file; on other platforms nothing is written.
pub fn write(path: &Path, outcome: &Outcome, redactor: &Redactor) {
    if !path.is_file() {
        return;
    }
    let digest = redactor.redact_document(outcome.termination_message().into_bytes());
    // A failure is ignored: the log contains the outcome too.
    drop(std::fs::write(path, digest));
}
