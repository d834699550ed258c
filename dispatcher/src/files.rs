//! File access with errors that name the path.

pub(crate) mod tree;

use std::fs;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use orchestrator_contract::Reason;
use rustix::fs::{Mode, OFlags};

use crate::error::Error;

/// Converts a file system error to an [`Error`] that names the path.
pub(crate) fn problem(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    // All other kinds are disk faults, or too rare for a reason of their own.
    let reason = if matches!(
        error.kind(),
        // The last two: another file exists where the folder should be.
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists
    ) {
        Reason::WorkspaceUnwritable
    } else if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        Reason::DiskFull
    } else {
        Reason::IoError
    };
    Error::new(reason, format!("cannot {doing} {}: {error}", path.display()))
}

/// Returns the file's text; `None` if the file does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(problem("read", path, &error)),
    }
}

/// Returns the first `max` bytes of a regular file as text; `None` if there is no such file or text.
pub(crate) fn read_small(path: &Path, max: u64) -> Option<String> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Moves aside a folder in place of a file, and files in place of its folders below `root`.
pub(crate) fn make_way(root: &Path, path: &Path) -> Result<(), Error> {
    let mut folders: Vec<&Path> =
        path.ancestors().skip(1).take_while(|folder| *folder != root && folder.starts_with(root)).collect();
    folders.reverse();
    for folder in folders {
        if folder.symlink_metadata().is_ok() && !folder.is_dir() {
            move_aside(folder)?;
        }
    }
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        move_aside(path)?;
    }
    Ok(())
}

fn move_aside(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names = (1_u32..).map(|number| path.with_file_name(format!("{name}.unusable-{number}")));
    let free = names.into_iter().find(|free| free.symlink_metadata().is_err());
    fs::rename(path, free.unwrap_or_default()).map_err(|error| problem("move", path, &error))
}

/// Part of a text file, in whole lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Excerpt {
    pub text: String,
    /// Whether the file has more.
    pub truncated: bool,
}

impl Excerpt {
    /// Returns the first `max` bytes of a text, in whole lines.
    pub(crate) fn head(mut bytes: Vec<u8>, max: usize) -> Self {
        let truncated = bytes.len() > max;
        bytes.truncate(max);
        if truncated && let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            bytes.truncate(end + 1);
        }
        Self { text: String::from_utf8_lossy(&bytes).into_owned(), truncated }
    }

    /// Returns the last `max` bytes of a text, in whole lines.
    pub(crate) fn tail(mut bytes: Vec<u8>, max: usize) -> Self {
        let truncated = bytes.len() > max;
        bytes.drain(..bytes.len().saturating_sub(max));
        if truncated && let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            bytes.drain(..=end);
        }
        Self { text: String::from_utf8_lossy(&bytes).into_owned(), truncated }
    }
}

/// Returns the first `max` bytes of a file; `None` if the file does not exist.
pub(crate) fn read_head(path: &Path, max: u64) -> Result<Option<Excerpt>, Error> {
    excerpt(path, |file, size| {
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        let is_cut = size > max;
        if is_cut && let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            bytes.truncate(end + 1);
        }
        Ok((bytes, is_cut))
    })
}

/// Returns the last `max` bytes of a file; `None` if the file does not exist.
pub(crate) fn read_tail(path: &Path, max: u64) -> Result<Option<Excerpt>, Error> {
    excerpt(path, |file, size| {
        let mut bytes = Vec::new();
        let is_cut = size > max;
        file.seek(SeekFrom::Start(size.saturating_sub(max)))?;
        file.take(max).read_to_end(&mut bytes)?;
        if is_cut && let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            bytes.drain(..=end);
        }
        Ok((bytes, is_cut))
    })
}

fn excerpt(
    path: &Path,
    read: impl FnOnce(&mut fs::File, u64) -> std::io::Result<(Vec<u8>, bool)>,
) -> Result<Option<Excerpt>, Error> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        read(&mut file, size)
    };
    match read() {
        Ok((bytes, is_cut)) => {
            Ok(Some(Excerpt { text: String::from_utf8_lossy(&bytes).into_owned(), truncated: is_cut }))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(problem("read", path, &error)),
    }
}

/// Creates a folder and its parents, accessible by the owner only.
pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| problem("create folder", path, &error))
}

/// Atomically and durably replaces a file's content.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
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

/// Returns the names in a folder, sorted; empty if the folder does not exist.
pub(crate) fn list_names(folder: &Path) -> Result<Vec<String>, Error> {
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

/// Returns the total bytes of a path; unreadable files count as 0.
pub(crate) fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_contain_whole_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let part = |text: &str, is_cut| Some(Excerpt { text: text.to_owned(), truncated: is_cut });
        let text = b"one\ntwo\nthree\n".to_vec();
        assert_eq!(Some(Excerpt::head(text.clone(), 9)), part("one\ntwo\n", true));
        assert_eq!(Some(Excerpt::tail(text.clone(), 9)), part("three\n", true));
        assert_eq!(Some(Excerpt::tail(text, 14)), part("one\ntwo\nthree\n", false));
        assert_eq!(read_head(&path, 9).unwrap(), part("one\ntwo\n", true));
        assert_eq!(read_tail(&path, 9).unwrap(), part("three\n", true));
        assert_eq!(read_tail(&path, 14).unwrap(), part("one\ntwo\nthree\n", false));
        assert_eq!(read_head(&folder.path().join("none"), 9).unwrap(), None);
    }
}
