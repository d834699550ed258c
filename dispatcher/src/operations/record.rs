//! What the supervisor keeps of a run in the workspace.

use orchestrator_contract::RunName;

use super::Dispatcher;
pub use crate::backend::Artifact;
use crate::error::Error;
use crate::files::Excerpt;

impl Dispatcher {
    /// Reads a piece of a run's record.
    ///
    /// # Errors
    /// There is no such run, its workspace cannot be reached, or there is no such piece (yet).
    pub async fn record(&self, run: &RunName, piece: Artifact) -> Result<Excerpt, Error> {
        let found = self.backend.artifact(&self.run(run).await?, piece).await?;
        let what = match piece {
            Artifact::Transcript => "transcript",
            Artifact::Diff => "diff",
        };
        found.ok_or_else(|| {
            Error::invalid_request(format!("there is no {what} of `{run}`")).with_hint(
                "There is one once the agent has worked, and a diff once its work was saved; those of old runs \
                 are cleared away.",
            )
        })
    }
}
