//! The backend's handle: its configuration and the connection to the engine.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary};
use bollard::query_parameters::ListContainersOptionsBuilder;
use jiff::Timestamp;
use orchestrator_contract::{RunName, ServiceName, TaskKey};
use tokio::sync::OnceCell;

use super::connect::{self, Engine, problem, status};
use super::labels::{HELPER, ROLE, RUN, SERVICE};
use super::liveness::{ContainerLiveness, liveness};
use crate::backend::StoredRun;
use crate::config::Config;
use crate::error::Error;

/// The docker backend.
#[derive(Clone, Debug)]
pub struct Docker {
    pub(super) config: Arc<Config>,
    /// Connected on first use.
    pub(super) engine: Arc<OnceCell<Engine>>,
}

impl Docker {
    /// Creates the backend without connecting to the engine.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, engine: Arc::new(OnceCell::new()) }
    }

    pub(super) async fn engine(&self) -> Result<&Engine, Error> {
        self.engine.get_or_try_init(|| connect::connect(&self.config)).await
    }

    /// Lists the containers that have all of these labels.
    pub(super) async fn containers(&self, filter: Vec<String>) -> Result<Vec<ContainerSummary>, Error> {
        let filters = HashMap::from([("label".to_owned(), filter)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let client = &self.engine().await?.client;
        client.list_containers(Some(options)).await.map_err(|error| problem("list containers", &error))
    }

    /// Returns the id of any supervisor's container of a service that mounts a volume.
    pub(super) async fn supervisor_with(
        &self,
        service: &ServiceName,
        volume: &str,
    ) -> Result<Option<String>, Error> {
        let runs = self.containers(vec![format!("{SERVICE}={service}"), RUN.to_owned()]).await?;
        let mut runs = runs.into_iter().filter(is_supervisor).filter(|container| {
            container.mounts.iter().flatten().any(|mount| mount.name.as_deref() == Some(volume))
        });
        Ok(runs.find_map(|container| container.id))
    }

    /// Returns a container; `None` if it does not exist.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, Error> {
        match self.engine().await?.client.inspect_container(name, None).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(problem(&format!("inspect container {name}"), &error)),
        }
    }

    /// Returns whether the container of a run is alive.
    pub(super) async fn probe(&self, run: &RunName, now: Timestamp) -> Result<ContainerLiveness, Error> {
        if let Some(container) = self.inspect(run.as_str()).await? {
            let created_at = container.created.as_deref().and_then(|at| at.parse().ok());
            return Ok(liveness(&container.state.unwrap_or_default(), created_at, now));
        }
        // An engine lists a container while creating it, before it can be inspected.
        let listed = self.containers(vec![format!("{RUN}={run}")]).await?.into_iter().find(is_supervisor);
        let created_at =
            listed.as_ref().and_then(|container| Timestamp::from_second(container.created?).ok());
        let status = listed.map(|_| ContainerStateStatusEnum::CREATED);
        Ok(liveness(&ContainerState { status, ..ContainerState::default() }, created_at, now))
    }
}

/// Returns whether a container of a run is that of its supervisor.
pub(super) fn is_supervisor(container: &ContainerSummary) -> bool {
    container.labels.as_ref().is_some_and(|labels| !labels.contains_key(ROLE) && !labels.contains_key(HELPER))
}

/// Returns a run's attempt number if it belongs to the task key.
pub(super) fn attempt_of(run: &StoredRun, identity: &TaskKey) -> Option<u32> {
    (run.task.identity() == *identity).then_some(run.task.attempt)
}
