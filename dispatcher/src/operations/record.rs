//! Artifacts that the supervisor keeps of a run in the workspace.

use orchestrator_contract::RunName;

use super::checkout::not_saved;
use super::dispatcher::Dispatcher;
use crate::backend::Artifact;
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::advice::Advice;

impl Dispatcher {
    /// Reads an artifact of a run.
    ///
    /// # Errors
    /// Returns an error if no such run exists, its workspace is unreachable, or it has no such
    /// artifact (yet).
    pub async fn record(&self, run: &RunName, artifact: Artifact) -> Result<Excerpt, Error> {
        let stored = self.run(run).await?;
        if let Some(found) = self.backend.artifact(&stored, artifact).await? {
            return Ok(found);
        }
        let is_active = !self.status_of(stored).await?.phase.is_final();
        Err(match (artifact, is_active) {
            (Artifact::Diff, true) => not_saved(run),
            (Artifact::Diff, false) => Error::invalid_request(format!("`{run}` has no diff"))
                .with_hint(Advice::ShowStatus(run.clone())),
            (Artifact::Transcript, true) => Error::invalid_request(format!("`{run}` has no transcript yet"))
                .with_hint(Advice::Follow(run.clone())),
            (Artifact::Transcript, false) => Error::invalid_request(format!("`{run}` has no transcript"))
                .with_hint(Advice::ShowStatus(run.clone())),
        })
    }
}
