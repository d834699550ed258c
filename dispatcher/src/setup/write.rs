//! How a client's file is replaced.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files;

/// A file as it was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExistingFile {
    /// The file itself, where the name is a symbolic link.
    pub path: PathBuf,
    /// Its text; none if there is no such file.
    pub text: Option<String>,
}

/// Reads a client's file.
///
/// # Errors
/// It is there and cannot be read.
pub fn find(path: &Path) -> Result<ExistingFile, Error> {
    // Whoever keeps the file elsewhere and links to it wants the link to stay.
    let path = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if path.is_symlink() {
                return Err(files::problem("read", path, &error)
                    .with_hint("The link leads nowhere: remove it, or make the file it names."));
            }
            path.to_owned()
        }
        Err(error) => return Err(files::problem("read", path, &error)),
    };
    let text = files::read(&path)?;
    Ok(ExistingFile { path, text })
}

/// Replaces the file at once, with the permissions that it had.
///
/// # Errors
/// It was changed since it was found, or cannot be written.
pub fn replace(found: &ExistingFile, text: &str) -> Result<(), Error> {
    let ExistingFile { path, text: before } = found;
    let Some(folder) = path.parent() else {
        return Err(files::problem("write", path, &std::io::ErrorKind::InvalidInput.into()));
    };
    let failed = |error: std::io::Error| files::problem("write", path, &error);
    fs::create_dir_all(folder).map_err(|error| files::problem("make folder", folder, &error))?;
    // A new file may come to hold tokens: it is for its owner.
    let mode = fs::metadata(path).map_or(fs::Permissions::from_mode(0o600), |meta| meta.permissions());
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(failed)?;
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    // The client may be running, and writes the same file.
    if files::read(path)? != *before {
        return Err(Error::new(
            orchestrator_contract::Reason::IoError,
            format!("{} was changed by another program meanwhile; it was left as it is", path.display()),
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
