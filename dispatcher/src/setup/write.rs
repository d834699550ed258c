//! Replaces a client's configuration file.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files;

/// A file as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExistingFile {
    /// The real path, with symbolic links resolved.
    pub path: PathBuf,
    /// The text; `None` if the file does not exist.
    pub text: Option<String>,
}

/// Reads a client's file.
///
/// # Errors
/// Returns an error if the file exists but cannot be read.
pub fn find(path: &Path) -> Result<ExistingFile, Error> {
    // Resolve a symbolic link, so that the link itself is not replaced.
    let path = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(files::problem("read", path, &error)
                    .with_hint("The symbolic link is dangling: remove it, or create its target."));
            }
            path.to_owned()
        }
        Err(error) => return Err(files::problem("read", path, &error)),
    };
    let text = files::read(&path)?;
    Ok(ExistingFile { path, text })
}

/// Atomically replaces the file and keeps its permissions.
///
/// # Errors
/// Returns an error if the file changed since it was read, or cannot be written.
pub fn replace(found: &ExistingFile, text: &str) -> Result<(), Error> {
    let ExistingFile { path, text: before } = found;
    let Some(folder) = path.parent() else {
        return Err(files::problem("write", path, &std::io::ErrorKind::InvalidInput.into()));
    };
    let failed = |error: std::io::Error| files::problem("write", path, &error);
    fs::create_dir_all(folder).map_err(|error| files::problem("create folder", folder, &error))?;
    // A new file may later hold tokens: make it private.
    let mode = fs::metadata(path).map_or(fs::Permissions::from_mode(0o600), |meta| meta.permissions());
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    // A running client may write the same file.
    if files::read(path)? != *before {
        return Err(Error::new(
            orchestrator_contract::Reason::IoError,
            format!("{} was changed by another program; it was not modified", path.display()),
        )
        .with_hint("Run the command again."));
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    files::sync_folder(folder).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_write_keeps_permissions_of_symlink_target() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("dotfiles.json"), folder.path().join("mcp.json"));
        fs::write(&real, "{}").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&find(&link).unwrap(), "{ }").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "{ }");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn concurrently_changed_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/mcp.json");
        let found = find(&path).unwrap();
        assert_eq!(found.text, None);
        replace(&found, "1").unwrap();
        assert!(replace(&found, "2").unwrap_err().message().contains("was changed"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
    }
}
