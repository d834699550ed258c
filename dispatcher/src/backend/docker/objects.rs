//! Creates and removes containers and volumes.

use std::collections::BTreeMap;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, WaitContainerOptions,
};
use futures::StreamExt as _;
use orchestrator_contract::ServiceName;

use super::connect::{problem, status};
use super::handle::Docker;
use super::labels::{HELPER, SERVICE};
use super::spec::{ContainerSpec, VolumeMount};
use crate::error::Error;

/// How long a helper may run.
const HELPER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Result of claiming a container name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NameClaim {
    /// The container was created.
    Created,
    /// Another container has the name.
    AlreadyExists,
}

impl Docker {
    /// Creates a container; pulls a missing image.
    pub(super) async fn create_container(&self, spec: &ContainerSpec) -> Result<NameClaim, Error> {
        match self.create_or_conflict(Some(&spec.name), &spec.image, spec.body()).await? {
            Some(_) => Ok(NameClaim::Created),
            None => Ok(NameClaim::AlreadyExists),
        }
    }

    /// Creates a container with a name from the engine and returns its id.
    pub(super) async fn create_unnamed(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let created = self.create_or_conflict(None, &spec.image, spec.body()).await?;
        created.ok_or_else(|| {
            let error = bollard::errors::Error::RequestTimeoutError;
            problem(&format!("name a container of image {}", spec.image), &error)
        })
    }

    /// Creates a container and returns its id; `None` if its name is in use.
    async fn create_or_conflict(
        &self,
        name: Option<&str>,
        image: &str,
        body: ContainerCreateBody,
    ) -> Result<Option<String>, Error> {
        let client = &self.engine().await?.client;
        let mut pulled = false;
        loop {
            let options = name.map(|name| CreateContainerOptionsBuilder::new().name(name).build());
            match client.create_container(options, body.clone()).await {
                Ok(container) => return Ok(Some(container.id)),
                Err(error) if status(&error) == Some(409) => return Ok(None),
                Err(error) if status(&error) == Some(404) && !pulled => {
                    self.pull(image).await?;
                    pulled = true;
                }
                Err(error) => {
                    let name =
                        name.map_or_else(|| "a container".to_owned(), |name| format!("container {name}"));
                    return Err(problem(&format!("create {name} of image {image}"), &error));
                }
            }
        }
    }

    /// Creates a container with volumes of a service, to copy files and to give new volumes their owner.
    /// It is not started.
    pub(super) async fn create_helper(
        &self,
        service: &ServiceName,
        image: String,
        volumes: Vec<VolumeMount>,
        command: &[&str],
    ) -> Result<String, Error> {
        self.create_unnamed(&self.helper(service, image, volumes, command)).await
    }

    /// Returns the definition of a helper.
    pub(super) fn helper(
        &self,
        service: &ServiceName,
        image: String,
        volumes: Vec<VolumeMount>,
        command: &[&str],
    ) -> ContainerSpec {
        let mut spec = ContainerSpec::new(self.config.docker(), String::new(), image);
        spec.labels = helper_labels(service);
        spec.volumes = volumes;
        spec.network = Some("none".to_owned());
        let (program, arguments) = command.split_first().unwrap_or((&"true", &[]));
        spec.entrypoint = Some((*program).to_owned());
        spec.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        spec
    }

    /// Starts a helper and waits for its exit.
    pub(super) async fn run_helper(&self, id: &str, doing: &str) -> Result<(), Error> {
        self.wait_for_helper(id, doing).await?.map_err(|error| problem(doing, &error))
    }

    /// Starts a helper and returns its exit code.
    pub(super) async fn helper_exit_code(&self, id: &str, doing: &str) -> Result<i64, Error> {
        match self.wait_for_helper(id, doing).await? {
            Ok(()) => Ok(0),
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => Ok(code),
            Err(error) => Err(problem(doing, &error)),
        }
    }

    async fn wait_for_helper(
        &self,
        id: &str,
        doing: &str,
    ) -> Result<Result<(), bollard::errors::Error>, Error> {
        let client = &self.engine().await?.client;
        self.start(id, doing).await?;
        let mut end = client.wait_container(id, None::<WaitContainerOptions>).boxed();
        match tokio::time::timeout(HELPER_TIMEOUT, end.next()).await {
            Ok(Some(Ok(_)) | None) => Ok(Ok(())),
            Ok(Some(Err(error))) => Ok(Err(error)),
            Err(_) => Err(problem(doing, &bollard::errors::Error::RequestTimeoutError)),
        }
    }

    /// Starts a container.
    pub(super) async fn start(&self, name: &str, doing: &str) -> Result<(), Error> {
        let client = &self.engine().await?.client;
        client.start_container(name, None).await.map_err(|error| problem(doing, &error))
    }

    /// Removes a container, running or not, if it exists; its anonymous volumes too.
    pub(super) async fn remove_container(&self, name: &str) -> Result<(), Error> {
        // An image may declare volumes, which the engine creates without a name.
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
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

    /// Returns whether a volume exists.
    pub(super) async fn has_volume(&self, name: &str) -> Result<bool, Error> {
        match self.engine().await?.client.inspect_volume(name).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(problem(&format!("inspect volume {name}"), &error)),
        }
    }
}

/// Returns the labels of a helper container.
pub(super) fn helper_labels(service: &ServiceName) -> BTreeMap<String, String> {
    BTreeMap::from([(SERVICE.to_owned(), service.to_string()), (HELPER.to_owned(), "true".to_owned())])
}
