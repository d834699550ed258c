//! Process-wide settings of libgit2.

#![expect(unsafe_code, reason = "libgit2's process-wide options")]

use std::sync::OnceLock;

use git2::ConfigLevel;

use super::error::GitError;
use super::transport;

/// Disables libgit2's configuration search and owner check, and registers the transports.
///
/// Must be called before any other use of libgit2; later calls do nothing.
///
/// # Errors
/// Returns an error if libgit2 cannot be initialized.
pub fn init() -> Result<(), GitError> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| set().map_err(|error| error.message().to_owned()))
        .clone()
        .map_err(|text| GitError::library("initialize libgit2")(git2::Error::from_str(&text)))
}

fn set() -> Result<(), git2::Error> {
    // SAFETY: once per process, before any other use of libgit2 (`DONE` above).
    unsafe {
        for level in [ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::System, ConfigLevel::ProgramData] {
            git2::opts::set_search_path(level, "")?;
        }
        // The root of a volume can have another owner, and only known repositories are opened.
        git2::opts::set_verify_owner_validation(false)?;
    }
    // What was read from a disk is what its name says; the default, but not one to rely on.
    git2::opts::strict_hash_verification(true);
    transport::register()
}
