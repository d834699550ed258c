//! A fresh directory: created exclusively, under a name that nothing could predict.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::git::remove_tree;

/// Characters of a name: 60 random bits, and short, because paths of sockets are limited to 107 bytes.
const NAME_LENGTH: usize = 16;

/// How many names are tried; a second one is needed only after a collision.
const ATTEMPTS: usize = 8;

/// A fresh directory of one sandbox, with subdirectories for home, temporary files and caches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// Creates a directory that did not exist before, for this user only.
    ///
    /// # Errors
    /// Returns an error if the directory cannot be created, or if `parent` is a link.
    pub fn create(parent: &Path) -> io::Result<Self> {
        let is_directory = std::fs::symlink_metadata(parent)?.is_dir();
        if !is_directory {
            return Err(io::Error::other(format!("`{}` is not a directory", parent.display())));
        }
        let private = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        for _ in 0..ATTEMPTS {
            let folder = parent.join(random_name());
            match private(&folder) {
                // Something planted there is neither used nor changed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created?,
            }
            let home = Self { folder };
            for folder in [home.home(), home.tmp(), home.cache()] {
                private(&folder)?;
            }
            return Ok(home);
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every random name exists"))
    }

    /// Returns the directory of a name in `parent`, as [`Self::name`] returned it.
    ///
    /// Returns `None` if it is not a name of this module.
    #[must_use]
    pub fn named(parent: &Path, name: &str) -> Option<Self> {
        let is_name = name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_name.then(|| Self { folder: parent.join(name) })
    }

    /// Returns the directory itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the name of the directory.
    #[must_use]
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Returns the directory for temporary files.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Returns the directory for caches of tools.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }
}

fn random_name() -> String {
    let mut name = uuid::Uuid::new_v4().simple().to_string();
    name.truncate(NAME_LENGTH);
    name
}

/// Removes every entry of `parent` until `limit` has passed, without following links.
///
/// Returns whether all are removed. Call it only while nothing runs that could write there.
#[must_use]
pub fn remove_all(parent: &Path, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let Ok(entries) = std::fs::read_dir(parent) else { return true };
    let mut all = true;
    for entry in entries.flatten() {
        if Instant::now() >= end {
            return false;
        }
        all &= remove_tree(&entry.path()).is_ok();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn home_is_private_and_never_an_existing_directory() {
        let parent = tempfile::tempdir().unwrap();
        let (one, other) = (Home::create(parent.path()).unwrap(), Home::create(parent.path()).unwrap());
        assert_ne!(one, other);
        for folder in [one.folder(), &one.home(), &one.tmp(), &one.cache()] {
            let mode = std::fs::symlink_metadata(folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
        assert_eq!(Home::named(parent.path(), &one.name()), Some(one));
        for name in ["", "..", "home", "../../0123456789ab", "0123456789abcde/"] {
            assert_eq!(Home::named(parent.path(), name), None, "{name}");
        }
    }

    #[test]
    fn home_is_not_created_below_link() {
        let folder = tempfile::tempdir().unwrap();
        let (lead, link) = (folder.path().join("lead"), folder.path().join("agent"));
        std::fs::create_dir(&lead).unwrap();
        symlink(&lead, &link).unwrap();
        assert!(Home::create(&link).is_err());
        assert_eq!(std::fs::read_dir(&lead).unwrap().count(), 0);
    }

    #[test]
    fn removal_deletes_links_and_not_their_targets() {
        let folder = tempfile::tempdir().unwrap();
        let (lead, agent) = (folder.path().join("lead"), folder.path().join("agent"));
        std::fs::create_dir_all(lead.join("deep")).unwrap();
        std::fs::write(lead.join("deep/.bashrc"), "mine").unwrap();
        std::fs::create_dir(&agent).unwrap();
        let home = Home::create(&agent).unwrap();
        for at in [agent.join("home"), home.home().join("deep"), home.folder().join("x")] {
            symlink(&lead, at).unwrap();
        }
        symlink(lead.join("deep/.bashrc"), home.tmp().join("file")).unwrap();
        assert!(remove_all(&agent, Duration::from_secs(60)));
        assert_eq!(std::fs::read_dir(&agent).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(lead.join("deep/.bashrc")).unwrap(), "mine");
    }
}
