//! Prepares the volumes that only containers of other images mount.
//!
//! The engine gives a new volume owner and content of the image's folder when the first container that
//! mounts it is created. So a container of the supervisor's image is created first, and never started.

use std::collections::HashMap;
use std::time::Duration;

use orchestrator_contract::ServiceName;
use orchestrator_contract::containers::{ContainerRole, SUPERVISOR, TOOLS_DIR};
use tokio::time::Instant;

use super::archive::{self, Archive};
use super::connect::problem;
use super::guests::{self, workspace_mount};
use super::handle::Docker;
use super::images::Image;
use super::labels::TOOLS;
use super::objects::NameClaim;
use crate::config::User;
use crate::error::Error;

/// How long another process may copy the same tools.
const TOOLS_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause before the name of the tools' helper is claimed again.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// File in the tools volume that says that everything was copied.
const COMPLETE: &str = ".complete";

impl Docker {
    /// Creates the volumes of a service in which the programs of these roles work, with their owner.
    pub(super) async fn prepare_workspaces(
        &self,
        service: &ServiceName,
        supervisor: &Image,
        roles: &[ContainerRole],
    ) -> Result<(), Error> {
        for role in roles {
            let mount = workspace_mount(service, *role);
            if !self.has_volume(&mount.name).await? {
                let helper = self.create_helper(service, supervisor.id.clone(), vec![mount], &[]).await?;
                self.remove_container(&helper).await?;
            }
        }
        Ok(())
    }

    /// Prepares the volume with the guests' programs, of one image, and returns its name.
    ///
    /// A helper with the name of the volume exists while its content is copied and checked.
    pub(super) async fn prepare_tools(
        &self,
        service: &ServiceName,
        supervisor: &Image,
    ) -> Result<String, Error> {
        let name = guests::tools_volume(&supervisor.id);
        let labels = HashMap::from([(TOOLS.to_owned(), supervisor.id.clone())]);
        let mounts = vec![guests::tools_mount(name.clone(), labels)];
        let mut helper = self.helper(service, supervisor.id.clone(), mounts, &[SUPERVISOR, "--version"]);
        helper.name.clone_from(&name);
        let mut deadline = Instant::now() + TOOLS_TIMEOUT;
        loop {
            let existed = self.has_volume(&name).await?;
            match self.create_container(&helper).await? {
                NameClaim::Created => {
                    let complete = self.complete_tools(&name, supervisor, existed).await;
                    self.remove_container(&name).await?;
                    if let Ok(true) = complete {
                        return Ok(name);
                    }
                    self.remove_volume(&name).await?;
                    complete?;
                }
                NameClaim::AlreadyExists if Instant::now() < deadline => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                // Its process died.
                NameClaim::AlreadyExists => {
                    self.remove_container(&name).await?;
                    deadline = Instant::now() + TOOLS_TIMEOUT;
                }
            }
        }
    }

    /// Returns whether the tools volume is complete; marks a new one as such.
    async fn complete_tools(&self, helper: &str, supervisor: &Image, existed: bool) -> Result<bool, Error> {
        let client = &self.engine().await?.client;
        if archive::is_folder(client, helper, &format!("{TOOLS_DIR}/{COMPLETE}")).await?.is_some() {
            return Ok(true);
        }
        // The engine stopped while it copied.
        if existed {
            return Ok(false);
        }
        if archive::is_folder(client, helper, SUPERVISOR).await?.is_none() {
            // Some engines copy when the container starts. If the program is missing, the start fails.
            drop(self.run_helper(helper, "copy the programs of guests").await);
        }
        supervisor.require_tools(client, helper).await?;
        let owner = User { uid: 0, gid: 0 };
        Archive::default().file(COMPLETE, owner, 0o444, "").upload(client, helper, TOOLS_DIR).await?;
        Ok(true)
    }

    /// Removes the programs of images that the engine no longer has.
    pub(super) async fn sweep_tools(&self) -> Result<(), Error> {
        let engine = self.engine().await?;
        let images = engine.client.list_images(None::<bollard::query_parameters::ListImagesOptions>).await;
        let images = images.map_err(|error| problem("list images", &error))?;
        for volume in self.dangling(TOOLS).await? {
            let image = volume.labels.get(TOOLS);
            if image.is_some_and(|id| images.iter().all(|image| image.id != *id)) {
                // The engine refuses to remove a volume that a new container uses.
                drop(self.remove_volume(&volume.name).await);
            }
        }
        Ok(())
    }
}
