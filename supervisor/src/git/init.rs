//! What libgit2 is told once per process.

#![expect(unsafe_code, reason = "libgit2's process-wide options")]

use std::sync::OnceLock;

use git2::ConfigLevel;

use super::{GitError, transport};

/// Makes libgit2 read no configuration outside the repositories that are ours,
/// accept a volume that another user owns, and use our transports.
///
/// Called before the first use of anything here; later calls do nothing.
///
/// # Errors
/// libgit2 could not be initialised.
pub fn init() -> Result<(), GitError> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| set().map_err(|error| error.message().to_owned()))
        .clone()
        .map_err(|text| GitError::library("initialise libgit2")(git2::Error::from_str(&text)))
}

fn set() -> Result<(), git2::Error> {
    // SAFETY: once per process, before any other use of libgit2 (`DONE` above).
    unsafe {
        for level in [ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::System, ConfigLevel::ProgramData] {
            git2::opts::set_search_path(level, "")?;
        }
        // A volume's root is owned by another user; which repositories are opened is ours to say.
        git2::opts::set_verify_owner_validation(false)?;
    }
    transport::register()
}
