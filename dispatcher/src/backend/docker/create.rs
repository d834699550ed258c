//! Makes runs.

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
use futures::StreamExt as _;
use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, TaskKey, TaskSpec};

use super::connect::{problem, status};
use super::inputs::RunInputs;
use super::spec::{self, ContainerSpec, INPUT_MOUNT_PATH, InputMount};
use super::{Docker, attempt_of, attempts, labels};
use crate::backend::{Backend as _, CreateOutcome, CreateRun, StoredRun, SubmissionRecord};
use crate::error::Error;

/// Longest that an image is pulled.
const PULL_LIMIT: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// How long an engine takes to make a container, where it is quick.
const CREATE_POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// What came of taking a name.
enum NameClaim {
    /// The container is there.
    Created,
    /// Another one has the name.
    AlreadyExists,
}

impl Docker {
    /// The name of an attempt: another one where a run of somebody else has it.
    pub(super) async fn unused_run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        let plain = identity.run_name(attempt, |_| false);
        match self.run(&plain).await {
            Ok(Some(run)) if attempt_of(&run, identity).is_none() => identity.run_name(attempt, |_| true),
            Ok(Some(_) | None) | Err(_) => plain,
        }
    }

    /// The container of a task.
    pub(super) fn spec(&self, task: &TaskSpec, gift: &RunInputs) -> ContainerSpec {
        let settings = self.config.docker();
        let mut spec = ContainerSpec::new(
            settings,
            task.run.to_string(),
            spec::image(settings, self.config.service(&task.service).image.as_ref()),
            spec::workspace(&task.service),
        );
        spec.labels_of_workspace = labels::workspace_labels(&task.service);
        spec.environment.clone_from(&gift.environment);
        spec.stop_timeout_seconds = spec::stop_timeout_seconds(&spec.environment);
        spec.arguments = spec::arguments(gift.has_mcp_configs);
        spec.given = InputMount::Volume {
            name: spec::input_volume(&task.run),
            labels: labels::input_volume_labels(task),
        };
        spec
    }

    /// Makes a run and starts it.
    pub(super) async fn create_run(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error> {
        let CreateRun { identity, attempt, draft, request } = new;
        let record = SubmissionRecord {
            version: 1,
            backend: self.name().to_owned(),
            submitted_at: Timestamp::now(),
            request: request.clone(),
        };
        let task = draft.with_attempt(self.unused_run_name(identity, attempt).await, attempt);
        let gift = RunInputs::collect(&self.config, &task).await?;
        let run = StoredRun { record, task };
        let mut spec = self.spec(&run.task, &gift);
        spec.labels = labels::run_labels(&run)?;
        spec.arguments.extend(["--log-format".to_owned(), "json".to_owned()]);
        if let NameClaim::AlreadyExists = self.make(&spec.name, &spec.image, spec.body()).await? {
            // Whoever has the name may be making it yet, and is not listed before that is done.
            tokio::time::sleep(CREATE_POLL_INTERVAL).await;
            return match self.inspect(&spec.name).await? {
                // Somebody was faster, or it went again: decide anew.
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
        match self.fill_and_start(&run, &spec, &gift).await {
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

    /// Gives a container what its run needs, and starts it; false if its number was given out before.
    async fn fill_and_start(
        &self,
        run: &StoredRun,
        spec: &ContainerSpec,
        gift: &RunInputs,
    ) -> Result<bool, Error> {
        let client = &self.engine().await?.client;
        let (name, identity) = (spec.name.as_str(), run.task.identity());
        // The container of that number may have been there and gone since the number was decided upon.
        if attempts::read(client, name, &identity).await? >= run.task.attempt {
            return Ok(false);
        }
        attempts::raise(client, name, &identity, run.task.attempt, spec.user).await?;
        gift.archive(&run.task, spec.user)?.upload(client, name, INPUT_MOUNT_PATH).await?;
        match client.start_container(name, None).await {
            Ok(()) => Ok(true),
            Err(error) => Err(problem(&format!("start container {name} of image {}", spec.image), &error)),
        }
    }

    /// Takes back a run that could not be started; its number stays given out.
    async fn rollback(&self, run: &StoredRun) {
        // What stays behind is swept away later; it was never started, and counts as lost.
        drop(self.remove_container(run.task.run.as_str()).await);
        drop(self.remove_volume(&spec::input_volume(&run.task.run)).await);
    }

    /// Makes a container; pulls its image if that is not there.
    async fn make(&self, name: &str, image: &str, body: ContainerCreateBody) -> Result<NameClaim, Error> {
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
                    return Err(problem(&format!("make container {name} of image {image}"), &error));
                }
            }
        }
    }

    /// Pulls an image that the configuration names.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Error> {
        let missing =
            |why: &str| Error::new(Reason::ImageUnavailable, format!("there is no image `{image}`{why}"));
        // Anybody can publish an image of that name on a public registry, and it would get the secrets.
        if image == spec::default_image() {
            return Err(missing(" here, and the default one is not pulled").with_hint(
                "Build it (images/build.sh agent), or name another with `image` in [docker] or \
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
        let result: Result<(), String> = tokio::time::timeout(PULL_LIMIT, pull).await.unwrap_or_else(|_| {
            Err(format!("pulling it took more than {} minutes", PULL_LIMIT.as_secs() / 60))
        });
        result.map_err(|why| {
            missing(&format!(": {why}")).with_hint(format!(
                "Check its name. If its registry wants a login, pull it yourself (docker pull {image}), then try again."
            ))
        })
    }
}

fn name_in_use(name: &str) -> Error {
    Error::invalid_request(format!("a container named {name} is there already, and it is no run of ours"))
        .with_hint(format!("Rename or remove it (docker rename {name} OTHER), then submit again."))
}
