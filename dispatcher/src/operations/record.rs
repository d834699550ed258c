//! Artifacts that the supervisor keeps of a run in the workspace.

use orchestrator_contract::RunName;

use super::dispatcher::Dispatcher;
use crate::backend::Artifact;
use crate::error::Error;
use crate::files::Excerpt;

impl Dispatcher {
    /// Reads an artifact of a run.
    ///
    /// # Errors
    /// Returns an error if no such run exists, its workspace is unreachable, or it has no such
    /// artifact (yet).
    pub async fn record(&self, run: &RunName, artifact: Artifact) -> Result<Excerpt, Error> {
        let found = self.backend.artifact(&self.run(run).await?, artifact).await?;
        let kind = match artifact {
            Artifact::Transcript => "transcript",
            Artifact::Diff => "diff",
        };
        found.ok_or_else(|| {
            Error::invalid_request(format!("`{run}` has no {kind}")).with_hint(
                "A run has a transcript once its agent started, and a diff once its work is saved; those of old \
                 runs are removed.",
            )
        })
    }
}
