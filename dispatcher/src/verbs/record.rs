//! What the supervisor keeps of a run in the workspace.

use std::path::Path;

use orchestrator_contract::RunName;
use orchestrator_contract::layout::Layout;

use super::Dispatcher;
use crate::files::{self, Excerpt};
use crate::problem::Problem;

/// A piece of a run's record. Both were redacted when they were written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece {
    /// What the agent's program printed; its end, where it is long.
    Transcript,
    /// What the run's branch changes; its beginning, where it is long.
    Diff,
}

/// How much of a piece is read, in bytes.
const PIECE_MAX: u64 = 1024 * 1024;

impl Dispatcher {
    /// Reads a piece of a run's record.
    ///
    /// # Errors
    /// There is no such run, its workspace cannot be reached from here, or there is no such piece (yet).
    pub async fn record(&self, run: &RunName, piece: Piece) -> Result<Excerpt, Problem> {
        let service = self.run(run).await?.task.service;
        let workspace = self.backend.workspace(&service);
        let root = Path::new(&workspace);
        if !root.is_absolute() {
            return Err(Problem::request(format!("the workspace `{workspace}` cannot be read from here"))
                .next(format!("Read the log instead: dispatcher logs {run}")));
        }
        let record = Layout::new(root).run(run);
        let (what, found) = match piece {
            Piece::Transcript => ("transcript", files::read_end(&record.transcript(), PIECE_MAX)?),
            Piece::Diff => ("diff", files::read_start(&record.diff(), PIECE_MAX)?),
        };
        found.ok_or_else(|| {
            Problem::request(format!("there is no {what} of `{run}`")).next(
                "There is one once the agent has worked, and a diff once its work was saved; those of old runs \
                 are cleared away.",
            )
        })
    }
}
