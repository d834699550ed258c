//! Removes unused containers, volumes and secrets, and creates helper containers.

use std::collections::BTreeMap;

use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    WaitContainerOptions,
};
use futures::StreamExt as _;
use jiff::Timestamp;
use orchestrator_contract::ServiceName;
use orchestrator_contract::layout::Layout;

use super::connect::{problem, status};
use super::handle::Docker;
use super::labels::{HELPER, RUN, SERVICE};
use super::liveness::liveness;
use super::spec::{self, ContainerSpec, WORKSPACE};
use super::{archive, attempts, inputs};
use crate::backend::StoredRun;
use crate::error::Error;
use crate::task::event_fold::Liveness;

/// Age in seconds at which a helper is removed as a leftover: they live for moments.
const HELPER_MAX_AGE_SECONDS: i64 = 600;

/// How long a helper may run.
const HELPER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

impl Docker {
    /// Creates a helper container with the volume of a service and returns its id. It is not started.
    pub(super) async fn create_helper(
        &self,
        service: &ServiceName,
        image: Option<String>,
        command: &[String],
    ) -> Result<String, Error> {
        let settings = self.config.docker();
        let image =
            image.unwrap_or_else(|| spec::image(settings, self.config.service(service).image.as_ref()));
        let mut spec = ContainerSpec::new(settings, String::new(), image, spec::workspace(service));
        spec.labels = helper_labels(service);
        spec.network = Some("none".to_owned());
        let (program, arguments) =
            command.split_first().map_or(("true", &[][..]), |(program, rest)| (program.as_str(), rest));
        spec.entrypoint = Some(program.to_owned());
        spec.arguments = arguments.to_vec();
        self.create_unnamed(&spec).await
    }

    /// Creates a container with a name from the engine and returns its id.
    pub(super) async fn create_unnamed(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let client = &self.engine().await?.client;
        let mut pulled = false;
        loop {
            match client.create_container(None::<CreateContainerOptions>, spec.body()).await {
                Ok(container) => return Ok(container.id),
                Err(error) if status(&error) == Some(404) && !pulled => {
                    self.pull(&spec.image).await?;
                    pulled = true;
                }
                Err(error) => {
                    return Err(problem(&format!("create a container of image {}", spec.image), &error));
                }
            }
        }
    }

    /// Removes a container, running or not, if it exists.
    pub(super) async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        match self.engine().await?.client.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Another process is removing it.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(problem(&format!("remove container {name}"), &error)),
        }
    }

    /// Removes a volume if it exists.
    pub(super) async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        match self.engine().await?.client.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(problem(&format!("remove volume {name}"), &error)),
        }
    }

    /// Removes a finished run: its files in the workspace, its container and its input volume. Returns
    /// false if it is still alive.
    pub(super) async fn remove_run(&self, run: &StoredRun) -> Result<bool, Error> {
        let client = &self.engine().await?.client;
        let (name, identity) = (run.task.run.as_str(), run.task.identity());
        let Some(container) = self.inspect(name).await? else { return Ok(true) };
        if attempts::read(client, name, &identity).await? < run.task.attempt {
            let user = self.config.docker().user.unwrap_or(crate::config::User::DEFAULT);
            attempts::store(client, name, &identity, run.task.attempt, user).await?;
        }
        let mut command = ["rm", "-rf", "--"].map(str::to_owned).to_vec();
        command.push(path(run));
        // Use the container's image id: that image exists as long as the container.
        let helper = self.create_helper(&run.task.service, container.image, &command).await?;
        let result = self.run_helper(&helper).await;
        self.remove_container(&helper).await?;
        result?;
        match client.remove_container(name, None).await {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => {}
            // It is running: a user started it by hand.
            Err(error) if status(&error) == Some(409) => return Ok(false),
            Err(error) => return Err(problem(&format!("remove container {name}"), &error)),
        }
        self.remove_volume(&spec::input_volume(&run.task.run)).await?;
        Ok(true)
    }

    /// Starts a helper and waits for its exit.
    async fn run_helper(&self, id: &str) -> Result<(), Error> {
        let client = &self.engine().await?.client;
        let doing = "remove the files of a run";
        client.start_container(id, None).await.map_err(|error| problem(doing, &error))?;
        let mut end = client.wait_container(id, None::<WaitContainerOptions>).boxed();
        match tokio::time::timeout(HELPER_TIMEOUT, end.next()).await {
            Ok(Some(Ok(_)) | None) => Ok(()),
            Ok(Some(Err(error))) => Err(problem(doing, &error)),
            Err(_) => Err(problem(doing, &bollard::errors::Error::RequestTimeoutError)),
        }
    }

    /// Returns the approximate bytes of a run's log and of its files in the workspace.
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

    /// Removes leftovers: helpers, volumes of removed runs, secrets of finished runs.
    pub(super) async fn sweep_engine(&self) -> Result<(), Error> {
        let engine = self.engine().await?;
        let now = Timestamp::now();
        for container in self.containers(vec![HELPER.to_owned()]).await? {
            let old = container.created.is_some_and(|at| now.as_second() - at > HELPER_MAX_AGE_SECONDS);
            if let (true, Some(id)) = (old, container.id) {
                self.remove_container(&id).await?;
            }
        }
        for run in self.containers(vec![RUN.to_owned()]).await? {
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
        self.sweep_debug_runs(now).await
    }
}

/// Returns the labels of a helper container.
pub(super) fn helper_labels(service: &ServiceName) -> BTreeMap<String, String> {
    BTreeMap::from([(SERVICE.to_owned(), service.to_string()), (HELPER.to_owned(), "true".to_owned())])
}

/// Returns the run's path in the workspace: log and transcript.
fn path(run: &StoredRun) -> String {
    Layout::new(WORKSPACE).run_dir(&run.task.run).folder().to_string_lossy().into_owned()
}
