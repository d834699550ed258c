//! Attempt numbers. Creating a run's container claims its number; the highest number is stored in the
//! service's volume, where it outlives the containers.

use bollard::Docker as Client;
use orchestrator_contract::TaskKey;
use orchestrator_contract::layout::Layout;

use super::archive::{self, Archive};
use super::spec::WORKSPACE;
use crate::config::User;
use crate::error::Error;

/// Reads the stored attempt number of a task key through a container with the volume; 0 if none.
///
/// The file may be seen empty while it is written. That is safe: the container of the number being
/// allocated already exists.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn read(client: &Client, container: &str, identity: &TaskKey) -> Result<u32, Error> {
    let path = Layout::new(WORKSPACE).attempts(identity);
    let bytes = archive::read(client, container, &path.to_string_lossy()).await?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).trim().parse().unwrap_or_default())
}

/// Stores an allocated number. The caller has checked that no higher one is stored.
///
/// # Errors
/// Returns an error if the engine fails.
pub(super) async fn store(
    client: &Client,
    container: &str,
    identity: &TaskKey,
    attempt: u32,
    user: User,
) -> Result<(), Error> {
    let layout = Layout::new("");
    let path = layout.attempts(identity);
    // With all parent folders: those that the engine creates belong to root.
    let mut folders: Vec<_> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    folders.reverse();
    let mut archive = Archive::default();
    for folder in folders {
        archive = archive.folder(&folder.to_string_lossy(), user, 0o755);
    }
    archive
        .file(&path.to_string_lossy(), user, 0o644, format!("{attempt}\n"))
        .upload(client, container, WORKSPACE)
        .await
}
