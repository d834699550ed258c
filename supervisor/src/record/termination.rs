//! The termination message: what Kubernetes shows of an ended container.

use std::path::Path;

use orchestrator_contract::Outcome;

use crate::redact::Redactor;

/// Writes the outcome's digest, if somebody made the file for it: on a plain
/// machine there is none, and none is made.
pub fn write(path: &Path, outcome: &Outcome, redactor: &Redactor) {
    if !path.is_file() {
        return;
    }
    let digest = outcome.termination_message();
    // The outcome is in the log as well; a file that cannot be written changes nothing.
    drop(std::fs::write(path, redactor.redact(&digest).as_bytes()));
}
