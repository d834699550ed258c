//! Attempt numbers. Creating a run's container claims its number; the highest number is stored in a
//! volume of the service, where it outlives the containers.

use std::path::{Path, PathBuf};

use bollard::Docker as Client;
use orchestrator_contract::TaskKey;
use orchestrator_contract::containers::{PRIVATE_DIR, WORKSPACE};
use orchestrator_contract::layout::Layout;

use super::archive::{self, Archive};
use crate::config::User;
use crate::error::Error;

/// The stored attempt numbers, seen through a container with their volume.
#[derive(Debug)]
pub(super) struct AttemptNumbers<'a> {
    client: &'a Client,
    container: &'a str,
    layout: Layout,
    /// Mount path of the volume.
    mount: &'static str,
}

impl<'a> AttemptNumbers<'a> {
    /// Returns the numbers in the private volume of a service.
    pub(super) fn private(client: &'a Client, container: &'a str) -> Self {
        Self { client, container, layout: Layout::of_containers(), mount: PRIVATE_DIR }
    }

    /// Returns the numbers in a volume with a whole workspace: that of debug runs, and of services before
    /// their runs had several containers.
    pub(super) fn workspace(client: &'a Client, container: &'a str) -> Self {
        Self { client, container, layout: Layout::new(WORKSPACE), mount: WORKSPACE }
    }

    /// Reads the stored number of a task key; 0 if none.
    ///
    /// The file may be seen empty while it is written. That is safe: the container of the number being
    /// allocated already exists.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub(super) async fn read(&self, identity: &TaskKey) -> Result<u32, Error> {
        let path = self.layout.attempts(identity);
        let bytes = archive::read(self.client, self.container, &path.to_string_lossy()).await?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).trim().parse().unwrap_or_default())
    }

    /// Stores an allocated number. The caller has checked that no higher one is stored.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub(super) async fn store(&self, identity: &TaskKey, attempt: u32, user: User) -> Result<(), Error> {
        let file = self.layout.attempts(identity);
        let relative = file.strip_prefix(self.mount).unwrap_or(&file);
        let mut archive = Archive::default();
        // With all parent folders: those that the engine creates belong to root.
        for folder in parents(relative) {
            archive = archive.folder(&folder.to_string_lossy(), user, 0o755);
        }
        archive
            .file(&relative.to_string_lossy(), user, 0o644, format!("{attempt}\n"))
            .upload(self.client, self.container, self.mount)
            .await
    }

    /// Returns whether a number was ever stored here.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub(super) async fn exist(&self, identity: &TaskKey) -> Result<bool, Error> {
        let folder = folder(&self.layout, identity);
        Ok(archive::is_folder(self.client, self.container, &folder.to_string_lossy()).await?.is_some())
    }

    /// Copies all numbers to another volume, which has none.
    ///
    /// # Errors
    /// Returns an error if the engine fails.
    pub(super) async fn copy_to(&self, other: &AttemptNumbers<'_>, identity: &TaskKey) -> Result<(), Error> {
        let folder = folder(&self.layout, identity);
        let copied = archive::download(self.client, self.container, &folder.to_string_lossy()).await?;
        let Some(copied) = copied else { return Ok(()) };
        archive::upload(other.client, other.container, other.mount, copied).await
    }
}

/// Returns the folder with the numbers of all task keys.
fn folder(layout: &Layout, identity: &TaskKey) -> PathBuf {
    let root = layout.supervisor_dir();
    let file = layout.attempts(identity);
    let first = file.strip_prefix(&root).ok().and_then(|below| below.components().next());
    first.map_or_else(|| file.clone(), |first| root.join(first))
}

/// Returns the parent folders of a relative path, outermost first.
fn parents(path: &Path) -> Vec<&Path> {
    let mut parents: Vec<_> =
        path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    parents.reverse();
    parents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::docker::labels;

    #[test]
    fn numbers_are_stored_below_mount_of_their_volume() {
        let key = labels::tests::sample().task.identity();
        for (layout, mount, expected) in [
            (Layout::of_containers(), PRIVATE_DIR, "attempts"),
            (Layout::new(WORKSPACE), WORKSPACE, ".orchestrator/attempts"),
        ] {
            let folder = folder(&layout, &key);
            assert_eq!(folder.strip_prefix(mount).unwrap(), Path::new(expected));
            assert!(layout.attempts(&key).starts_with(folder));
        }
        assert_eq!(parents(Path::new("a/b/c")), [Path::new("a"), Path::new("a/b")]);
    }
}
