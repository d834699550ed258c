//! Files, with errors that name the path.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use orchestrator_contract::Reason;

use crate::problem::Problem;

/// Turns an error of the file system into a problem that names the path.
pub(crate) fn problem(doing: &str, path: &Path, error: &std::io::Error) -> Problem {
    // The rest of the kinds are faults of the disk, or so rare that the text must do.
    let reason = if matches!(
        error.kind(),
        // The latter two: something else is where the folder belongs.
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists
    ) {
        Reason::WorkspaceUnwritable
    } else if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        Reason::DiskFull
    } else {
        Reason::InputOutput
    };
    Problem::new(reason, format!("cannot {doing} {}: {error}", path.display()))
}

/// The file's text; none if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Problem> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(problem("read", path, &error)),
    }
}

/// Makes a folder and its parents, readable by nobody else.
pub(crate) fn make_folder(path: &Path) -> Result<(), Problem> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| problem("make folder", path, &error))
}

/// Replaces a file's content at once: readers see the old or the new text, and
/// after a crash too.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let Some(folder) = path.parent() else {
        return Err(problem("write", path, &ErrorKind::InvalidInput.into()));
    };
    let replace = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    replace().map_err(|error| problem("write", path, &error))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// The names in a folder, sorted; none if there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Problem> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(problem("list", folder, &error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The bytes that a folder and everything in it hold; what cannot be read counts nothing.
pub(crate) fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}
