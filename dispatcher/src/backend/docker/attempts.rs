//! Attempt numbers: the name of a run is taken by making its container, which only one can; the
//! highest number ever given out is kept in the service's volume, where it survives the containers.

use bollard::Docker as Client;
use orchestrator_contract::TaskKey;
use orchestrator_contract::layout::Layout;

use super::archive::{self, Archive};
use super::spec::WORKSPACE;
use crate::config::User;
use crate::error::Error;

/// The mark of an identity as a container that has the volume sees it; 0 if there is none.
///
/// A mark that is being written may be seen empty. That is no harm: the container of the number that
/// is being given out is there already.
///
/// # Errors
/// The engine cannot tell.
pub(super) async fn read(client: &Client, container: &str, identity: &TaskKey) -> Result<u32, Error> {
    let path = Layout::new(WORKSPACE).attempts(identity);
    let bytes = archive::read(client, container, &path.to_string_lossy()).await?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).trim().parse().unwrap_or_default())
}

/// Writes down that a number is given out. The caller has seen that no higher one is.
///
/// # Errors
/// The engine cannot.
pub(super) async fn raise(
    client: &Client,
    container: &str,
    identity: &TaskKey,
    attempt: u32,
    user: User,
) -> Result<(), Error> {
    let layout = Layout::new("");
    let path = layout.attempts(identity);
    // With all folders above it: what the engine makes by itself belongs to root.
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
