//! The `diff` command: the changes of a run's branch.

use orchestrator_contract::RunName;

use super::dispatcher::Dispatcher;
use crate::backend::Artifact;
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::diff::Diff;

impl Dispatcher {
    /// Returns the changes of a run's branch since its base.
    ///
    /// # Errors
    /// Returns an error if no such run exists, it has not saved its work, or its workspace is unreachable.
    pub async fn diff(&self, run: &RunName) -> Result<Diff, Error> {
        let Excerpt { text, truncated } = self.record(run, Artifact::Diff).await?;
        Ok(Diff::parse(&text, truncated))
    }
}
