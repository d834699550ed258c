//! Opens worktrees through a guest: the only way to the files in them.

use std::path::Path;

use orchestrator_contract::Reason;

use crate::context::Context;
use crate::failure::Failure;
use crate::guest::Guest;
use crate::site::Site;

/// What a guest is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Reads and writes files of an existing worktree.
    Existing,
    /// Creates the worktree's folder if it does not exist; replaces a file or link of that name.
    Create,
}

/// Starts the guest of this run's worktree.
///
/// # Errors
/// Returns an error if the folder does not exist or cannot be created, or the guest does not start.
pub fn open_worktree(context: &Context, access: Access) -> Result<Guest, Failure> {
    open_tree(context, &context.agent_site, &context.worktree(), access)
}

/// Starts a guest in a folder of the workspace.
///
/// # Errors
/// Returns an error if the folder does not exist or cannot be created, or the guest does not start.
pub fn open_tree(context: &Context, site: &Site, folder: &Path, access: Access) -> Result<Guest, Failure> {
    if access == Access::Create {
        let guest = site.open(context.layout.root())?;
        let path = guest.relative(folder).unwrap_or_default();
        let made = guest.make_folders(&[path]);
        made.map_err(|error| Failure::from_error(Reason::InternalError, &error))?
            .map_err(|error| Failure::io(folder, &error))?;
    }
    site.open(folder)
}
