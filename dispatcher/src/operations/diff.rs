//! The `diff` command: the changes of a run's branch.

use orchestrator_contract::{Reason, RunName};

use super::dispatcher::Dispatcher;
use crate::backend::Artifact;
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::advice::Advice;
use crate::task::diff::Diff;

/// Maximum number of runs to look for saved work in.
const MAX_TRIED_RUNS: usize = 10;

impl Dispatcher {
    /// Returns the first of the runs that has saved its work, with its changes.
    ///
    /// # Errors
    /// Returns the error of the first run if none has.
    pub async fn newest_diff(&self, runs: &[RunName]) -> Result<(RunName, Diff), Error> {
        let mut first = None;
        for run in runs.iter().take(MAX_TRIED_RUNS) {
            match self.diff(run).await {
                Ok(diff) => return Ok((run.clone(), diff)),
                Err(error) if error.reason() == Reason::InvalidTask => first = first.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| Error::invalid_request("no run found").with_hint(Advice::SubmitTask)))
    }

    /// Returns the changes of a run's branch since its base.
    ///
    /// # Errors
    /// Returns an error if no such run exists, it has not saved its work, or its workspace is unreachable.
    pub async fn diff(&self, run: &RunName) -> Result<Diff, Error> {
        let Excerpt { text, truncated } = self.record(run, Artifact::Diff).await?;
        Ok(Diff::parse(&text, truncated))
    }
}
