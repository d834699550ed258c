//! Runs as supervised processes on this machine: no daemon, no cluster.
//!
//! All state is files below one root; whoever reads them tolerates half-made
//! ones. Whether a supervisor lives is told by a lock that it inherits, never
//! by a process id.
//!
//! ```text
//! workspaces/workspace-{service}/   the persistent folder of a service
//! runs/{run}/
//!     lock           held as long as the supervisor lives: it is its stdin
//!     task.json      what the supervisor was asked to do
//!     record.json    what was asked for, and when: the run exists once this does
//!     events.jsonl   the supervisor's stdout
//!     stderr.log     its last words, if it could not say them properly
//!     stop           appears when somebody wants it to stop
//!     lost.json      when it was found to have ended without an outcome
//! ```

mod attempts;
mod follow;
pub mod launch;
mod lock;
mod store;

use std::path::PathBuf;

pub use attempts::Gate;
pub use follow::Follower;
pub use store::{Prepared, Record, Run};

/// The local backend.
#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
}

impl Local {
    /// The backend whose state is below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}
