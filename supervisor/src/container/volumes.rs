//! Prepares the volumes of a run's containers, before any of them starts.
//!
//! A container that mounts a subdirectory cannot change its parent, so this is done by a container of
//! ours that mounts the whole volume. It does the same again after any interruption.

mod former;
mod tools;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Directories of the volume: their names are subpaths of the containers' mounts.
const DIRECTORIES: [(&str, u32); 4] = [(PRIVATE, 0o770), (SHARED, 0o775), (TREE, 0o775), (VERIFY, 0o775)];

const PRIVATE: &str = "private";
const SHARED: &str = "shared";
const TREE: &str = "tree";
const VERIFY: &str = "verify";

/// Volume that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// Something else is in the place of a directory.
    #[error("`{}` is not a directory: move it away, then start the run again", .0.display())]
    NotDirectory(PathBuf),
    /// A link of the tools leads to a path that containers do not have.
    #[error("`{}` links to a path outside of the tools, which other containers do not have", .0.display())]
    LinkOut(PathBuf),
    /// The executable is beside programs of the system.
    #[error("`{}` has other programs than the tools: install the supervisor in `/opt/orchestrator/bin`", .0.display())]
    NotTools(PathBuf),
    /// An operation failed.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// Adds to an I/O error what was done with which path.
fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> VolumesError {
    move |source| VolumesError::Io { action, path: path.to_owned(), source }
}

/// Prepares the volume at `volumes`, and copies the tools that `executable` is part of to `tools`.
///
/// Returns notes about what a former layout had: where its parts are now.
///
/// # Errors
/// Returns an error if the volume cannot be written, or has something else than directories.
pub fn prepare(volumes: &Path, tools: &Path, executable: &Path) -> Result<Vec<String>, VolumesError> {
    make_directory(volumes, 0o775)?;
    // Before the new directories are made: the former layout had a directory `verify` too.
    let notes = former::adopt(volumes)?;
    for (name, mode) in DIRECTORIES {
        make_directory(&volumes.join(name), mode)?;
    }
    tools::copy_tools(executable, tools)?;
    Ok(notes)
}

/// Makes a directory with exactly this mode; an existing one is kept.
fn make_directory(path: &Path, mode: u32) -> Result<(), VolumesError> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(VolumesError::NotDirectory(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", path)(error)),
    }
    let make = failed("create", path);
    // A directory with its final name has its final mode, whenever this is interrupted.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    match fs::create_dir(&fresh) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created.map_err(&make)?,
    }
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).map_err(&make)?;
    fs::rename(&fresh, path).map_err(&make)
}

#[cfg(test)]
mod tests;
