//! Creates and starts runs.

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
use futures::StreamExt as _;
use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, TaskKey, TaskSpec};

use super::connect::{problem, status};
use super::handle::{Docker, attempt_of};
use super::inputs::RunInputs;
use super::spec::{self, ContainerSpec, INPUT_MOUNT_PATH, InputMount};
use super::{attempts, labels};
use crate::backend::{Backend as _, CreateOutcome, CreateRun, StoredRun, SubmissionRecord};
use crate::error::Error;

/// How long pulling an image may take.
const PULL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// Pause before inspecting a container that another process is creating.
const CREATE_POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// Result of claiming a run name.
enum NameClaim {
    /// The container was created.
    Created,
    /// Another container has the name.
    AlreadyExists,
}

impl Docker {
    /// Returns the run name of an attempt, with a suffix if another task key's run has the plain one.
    pub(super) async fn unused_run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        let plain = identity.run_name(attempt, |_| false);
        match self.run(&plain).await {
            Ok(Some(run)) if attempt_of(&run, identity).is_none() => identity.run_name(attempt, |_| true),
            Ok(Some(_) | None) | Err(_) => plain,
        }
    }

    /// Returns the container spec of a task.
    pub(super) fn spec(&self, task: &TaskSpec, inputs: &RunInputs) -> ContainerSpec {
        let settings = self.config.docker();
        let mut spec = ContainerSpec::new(
            settings,
            task.run.to_string(),
            spec::image(settings, self.config.service(&task.service).image.as_ref()),
            spec::workspace(&task.service),
        );
        spec.workspace_labels = labels::workspace_labels(&task.service);
        spec.environment.clone_from(&inputs.environment);
        spec.stop_timeout_seconds = spec::stop_timeout_seconds(&spec.environment);
        spec.arguments = spec::arguments(inputs.has_mcp_configs);
        spec.input_mount = InputMount::Volume {
            name: spec::input_volume(&task.run),
            labels: labels::input_volume_labels(task),
        };
        spec
    }

    /// Creates and starts a run.
    pub(super) async fn create_run(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error> {
        let CreateRun { identity, attempt, draft, request } = new;
        let record = SubmissionRecord {
            version: 1,
            backend: self.name().to_owned(),
            submitted_at: Timestamp::now(),
            request: request.clone(),
        };
        let task = draft.with_attempt(self.unused_run_name(identity, attempt).await, attempt);
        let inputs = RunInputs::collect(&self.config, &task).await?;
        let run = StoredRun { record, task };
        let mut spec = self.spec(&run.task, &inputs);
        spec.labels = labels::run_labels(&run)?;
        spec.arguments.extend(["--log-format".to_owned(), "json".to_owned()]);
        if let NameClaim::AlreadyExists = self.create_container(&spec.name, &spec.image, spec.body()).await? {
            // The other container may still be in creation, and is not listed before that is done.
            tokio::time::sleep(CREATE_POLL_INTERVAL).await;
            return match self.inspect(&spec.name).await? {
                // Another process created and removed it: decide again.
                None => Ok(CreateOutcome::AttemptTaken),
                Some(container) => {
                    let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
                    match labels::parse_run(&labels)? {
                        Some(_) => Ok(CreateOutcome::AttemptTaken),
                        None => Err(name_in_use(&spec.name)),
                    }
                }
            };
        }
        match self.fill_and_start(&run, &spec, &inputs).await {
            Ok(true) => Ok(CreateOutcome::Created(Box::new(run))),
            Ok(false) => {
                self.rollback(&run).await;
                Ok(CreateOutcome::AttemptTaken)
            }
            Err(problem) => {
                self.rollback(&run).await;
                Err(problem)
            }
        }
    }

    /// Copies the inputs and starts the container; returns false if its number was already allocated.
    async fn fill_and_start(
        &self,
        run: &StoredRun,
        spec: &ContainerSpec,
        inputs: &RunInputs,
    ) -> Result<bool, Error> {
        let client = &self.engine().await?.client;
        let (name, identity) = (spec.name.as_str(), run.task.identity());
        // A run of that number may have been created and removed since the number was chosen.
        if attempts::read(client, name, &identity).await? >= run.task.attempt {
            return Ok(false);
        }
        attempts::store(client, name, &identity, run.task.attempt, spec.user).await?;
        inputs.archive(&run.task, spec.user)?.upload(client, name, INPUT_MOUNT_PATH).await?;
        match client.start_container(name, None).await {
            Ok(()) => Ok(true),
            Err(error) => Err(problem(&format!("start container {name} of image {}", spec.image), &error)),
        }
    }

    /// Removes a run that could not be started; its number stays allocated.
    async fn rollback(&self, run: &StoredRun) {
        // Leftovers are swept later; until then the run counts as lost.
        drop(self.remove_container(run.task.run.as_str()).await);
        drop(self.remove_volume(&spec::input_volume(&run.task.run)).await);
    }

    /// Creates a container; pulls a missing image.
    async fn create_container(
        &self,
        name: &str,
        image: &str,
        body: ContainerCreateBody,
    ) -> Result<NameClaim, Error> {
        let client = &self.engine().await?.client;
        let mut pulled = false;
        loop {
            let options = CreateContainerOptionsBuilder::new().name(name).build();
            match client.create_container(Some(options), body.clone()).await {
                Ok(_) => return Ok(NameClaim::Created),
                Err(error) if status(&error) == Some(409) => return Ok(NameClaim::AlreadyExists),
                Err(error) if status(&error) == Some(404) && !pulled => {
                    self.pull(image).await?;
                    pulled = true;
                }
                Err(error) => {
                    return Err(problem(&format!("create container {name} of image {image}"), &error));
                }
            }
        }
    }

    /// Pulls a configured image.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Error> {
        let missing =
            |why: &str| Error::new(Reason::ImageUnavailable, format!("image `{image}` not found{why}"));
        // Not the default image: its name may be squatted on a public registry, and it gets secrets.
        if image == spec::default_image() {
            return Err(missing(", and the default image is never pulled").with_hint(
                "Build it (images/build.sh agent), or set another one with `image` in [docker] or \
                 ORCHESTRATOR_DOCKER_IMAGE.",
            ));
        }
        let (name, tag) = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !image.contains('@') => (name, tag),
            _ if image.contains('@') => (image, ""),
            _ => (image, "latest"),
        };
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let client = &self.engine().await?.client;
        let pull = async {
            let mut steps = client.create_image(Some(options), None, None).boxed();
            while let Some(step) = steps.next().await {
                step.map_err(|error| problem("pull it", &error).message().to_owned())?;
            }
            Ok(())
        };
        let result: Result<(), String> = tokio::time::timeout(PULL_TIMEOUT, pull)
            .await
            .unwrap_or_else(|_| Err(format!("timed out after {} minutes", PULL_TIMEOUT.as_secs() / 60)));
        result.map_err(|why| {
            missing(&format!(": {why}")).with_hint(format!(
                "Check its name. If its registry requires a login, pull it yourself (docker pull {image}), then try again."
            ))
        })
    }
}

fn name_in_use(name: &str) -> Error {
    Error::invalid_request(format!("a container named {name} exists and was not created by the orchestrator"))
        .with_hint(format!("Rename or remove it (docker rename {name} OTHER), then submit again."))
}
