//! Opens a worktree through a guest: the only way to the files in it.

use std::path::Path;

use crate::context::Context;
use crate::failure::Failure;
use crate::git::checkout::make_root;
use crate::guest::{Guest, GuestError, GuestOptions};
use orchestrator_contract::Reason;

/// The running program, also after its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What a guest is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Reads and writes files of an existing worktree.
    Existing,
    /// Creates the worktree's folder if it does not exist.
    Create,
}

/// Starts the guest of this run's worktree.
///
/// # Errors
/// Returns an error if the folder does not exist or cannot be created, or the guest does not start.
pub fn open_worktree(context: &Context, access: Access) -> Result<Guest, Failure> {
    let root = context.worktree();
    if access == Access::Create {
        make_root(&root).map_err(|error| Failure::from_error(error.reason(), &error))?;
    }
    open_tree(&root)
}

/// Starts a guest in a folder.
///
/// # Errors
/// Returns an error if the folder does not exist or the guest does not start.
pub fn open_tree(root: &Path) -> Result<Guest, Failure> {
    Guest::start(Path::new(THIS_PROGRAM), root, GuestOptions::default()).map_err(|error| {
        let reason = match &error {
            GuestError::Start { .. } | GuestError::Broken { .. } => Reason::InternalError,
            GuestError::Root { .. } => Reason::IoError,
        };
        Failure::from_error(reason, &error)
    })
}
