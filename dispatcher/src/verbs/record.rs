//! What the supervisor keeps of a run in the workspace.

use orchestrator_contract::RunName;

use super::Dispatcher;
pub use crate::backend::Piece;
use crate::files::Excerpt;
use crate::problem::Problem;

impl Dispatcher {
    /// Reads a piece of a run's record.
    ///
    /// # Errors
    /// There is no such run, its workspace cannot be reached, or there is no such piece (yet).
    pub async fn record(&self, run: &RunName, piece: Piece) -> Result<Excerpt, Problem> {
        let found = self.backend.piece(&self.run(run).await?, piece).await?;
        let what = match piece {
            Piece::Transcript => "transcript",
            Piece::Diff => "diff",
        };
        found.ok_or_else(|| {
            Problem::request(format!("there is no {what} of `{run}`")).next(
                "There is one once the agent has worked, and a diff once its work was saved; those of old runs \
                 are cleared away.",
            )
        })
    }
}
