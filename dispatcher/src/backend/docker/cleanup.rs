//! Removes unused containers, volumes and secrets.

use std::collections::BTreeSet;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt as _;
use jiff::Timestamp;
use orchestrator_contract::containers::ContainerRole;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{RunName, ServiceName};

use super::attempts::AttemptNumbers;
use super::connect::{problem, status};
use super::guests::{private_mount, private_volume, socket_volume};
use super::handle::{Docker, is_supervisor};
use super::labels::{HELPER, ROLE, RUN, SERVICE};
use super::liveness::liveness;
use super::{archive, inputs, spec};
use crate::backend::StoredRun;
use crate::error::Error;
use crate::task::event_fold::Liveness;

/// Age in seconds at which a helper is removed as a leftover: they live for moments.
const HELPER_MAX_AGE_SECONDS: i64 = 600;

impl Docker {
    /// Removes a finished run: its files in the private volume, its containers and its own volumes. Returns
    /// false if it is still alive.
    pub(super) async fn remove_run(&self, run: &StoredRun) -> Result<bool, Error> {
        let client = &self.engine().await?.client;
        let name = run.task.run.as_str();
        let Some(container) = self.inspect(name).await? else { return Ok(true) };
        self.remove_guests(&run.task.run).await?;
        // Runs of former versions have their files in the volume of the worktree, and leave them there.
        if mounts(&container, &private_volume(&run.task.service)) {
            self.remove_files(run, container.image.unwrap_or_default()).await?;
        }
        match client.remove_container(name, None).await {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => {}
            // It is running: a user started it by hand.
            Err(error) if status(&error) == Some(409) => return Ok(false),
            Err(error) => return Err(problem(&format!("remove container {name}"), &error)),
        }
        self.remove_run_volumes(&run.task.run).await?;
        Ok(true)
    }

    /// Removes the files of a run; its number stays.
    async fn remove_files(&self, run: &StoredRun, image: String) -> Result<(), Error> {
        let client = &self.engine().await?.client;
        let (service, identity) = (&run.task.service, run.task.identity());
        let path = path(run);
        let command = ["rm", "-rf", "--", path.as_str()];
        // The container's image id: that image exists as long as the container.
        let helper = self.create_helper(service, image, vec![private_mount(service)], &command).await?;
        let numbers = AttemptNumbers::private(client, &helper);
        let remove = async {
            if numbers.read(&identity).await? < run.task.attempt {
                numbers.store(&identity, run.task.attempt, self.config.docker().user()).await?;
            }
            self.run_helper(&helper, "remove the files of a run").await
        };
        let removed = remove.await;
        self.remove_container(&helper).await?;
        removed
    }

    /// Removes the volumes that only one run has.
    pub(super) async fn remove_run_volumes(&self, run: &RunName) -> Result<(), Error> {
        self.remove_volume(&spec::input_volume(run)).await?;
        for role in ContainerRole::ALL {
            self.remove_volume(&socket_volume(run, role)).await?;
        }
        Ok(())
    }

    /// Removes the containers beside that of an ended supervisor.
    pub(super) async fn remove_guests(&self, run: &RunName) -> Result<(), Error> {
        for guest in self.containers(vec![format!("{RUN}={run}"), ROLE.to_owned()]).await? {
            if let Some(id) = guest.id {
                self.remove_container(&id).await?;
            }
        }
        Ok(())
    }

    /// Removes containers of agents and verify commands of which the supervisor has ended or is gone.
    pub(super) async fn remove_leftover_guests(&self, of: Option<&ServiceName>) -> Result<(), Error> {
        let mut filter = vec![ROLE.to_owned(), RUN.to_owned()];
        filter.extend(of.map(|service| format!("{SERVICE}={service}")));
        let guests = self.containers(filter).await?;
        let runs: BTreeSet<RunName> =
            guests.into_iter().filter_map(|guest| RunName::new(guest.labels?.remove(RUN)?).ok()).collect();
        for run in runs {
            // A supervisor's container exists before its guests' do, so one that is gone has been removed.
            if self.probe(&run, Timestamp::now()).await?.liveness != Liveness::Alive {
                self.remove_guests(&run).await?;
            }
        }
        Ok(())
    }

    /// Returns the approximate bytes of a run's log and of its files in the private volume.
    pub(super) async fn run_size(&self, run: &StoredRun) -> u64 {
        let Ok(engine) = self.engine().await else { return 0 };
        let name = run.task.run.as_str();
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let mut size = 0;
        let mut log = engine.client.logs(name, Some(options)).boxed();
        while let Some(Ok(chunk)) = log.next().await {
            size += chunk.as_ref().len() as u64;
        }
        size + archive::size(&engine.client, name, &path(run)).await
    }

    /// Removes leftovers: helpers, guests and volumes of ended or removed runs, secrets of finished runs.
    pub(super) async fn sweep_engine(&self) -> Result<(), Error> {
        let engine = self.engine().await?;
        let now = Timestamp::now();
        for container in self.containers(vec![HELPER.to_owned()]).await? {
            let old = container.created.is_some_and(|at| now.as_second() - at > HELPER_MAX_AGE_SECONDS);
            if let (true, Some(id)) = (old, container.id) {
                self.remove_container(&id).await?;
            }
        }
        self.remove_leftover_guests(None).await?;
        for run in self.containers(vec![RUN.to_owned()]).await?.into_iter().filter(is_supervisor) {
            let Some(id) = run.id else { continue };
            let container = self.inspect(&id).await?.unwrap_or_default();
            let created_at = container.created.as_deref().and_then(|at| at.parse().ok());
            let container = liveness(&container.state.unwrap_or_default(), created_at, now);
            if container.liveness != Liveness::Alive {
                inputs::remove_secrets(&engine.client, &id).await?;
            }
        }
        for volume in self.dangling(RUN).await? {
            // The engine refuses to remove a volume that a new container uses.
            drop(self.remove_volume(&volume.name).await);
        }
        self.sweep_tools().await?;
        self.sweep_debug_runs(now).await
    }
}

/// Returns whether a container mounts a volume.
fn mounts(container: &ContainerInspectResponse, volume: &str) -> bool {
    let mounts = container.mounts.iter().flatten();
    mounts.filter_map(|mount| mount.name.as_deref()).any(|name| name == volume)
}

/// Returns the run's path in the private volume: log and transcript.
fn path(run: &StoredRun) -> String {
    Layout::of_containers().run_dir(&run.task.run).folder().to_string_lossy().into_owned()
}
