//! Creates and starts runs.
//!
//! Creating the supervisor's container claims the attempt. Then everything else is created and checked,
//! before anything starts. If this process dies in between, the claim stays, the run counts as lost, and
//! the rest is removed by the next command that sees it.

use jiff::Timestamp;
use orchestrator_contract::containers::ContainerRole;
use orchestrator_contract::{RunName, TaskKey, TaskSpec};

use super::attempts::AttemptNumbers;
use super::connect::Engine;
use super::guests::{self, Guests};
use super::handle::{Docker, attempt_of};
use super::images::Image;
use super::inputs::RunInputs;
use super::labels;
use super::objects::NameClaim;
use super::spec::{self, ContainerSpec, INPUT_MOUNT_PATH};
use crate::backend::{Backend as _, CreateOutcome, CreateRun, StoredRun, SubmissionRecord};
use crate::error::Error;

/// Pause before inspecting a container that another process is creating.
const CREATE_POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// The images of a run.
struct RunImages {
    supervisor: Image,
    agent: Image,
    /// Volume with the programs of guests, from the supervisor's image.
    tools: String,
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

    /// Returns the spec of the supervisor's container, without its labels.
    pub(super) fn spec(&self, task: &TaskSpec, inputs: &RunInputs) -> ContainerSpec {
        let settings = self.config.docker();
        let mut spec = self.base_spec(task, inputs);
        spec::add_container_arguments(&mut spec.arguments);
        spec.limit_as_supervisor(settings);
        spec.volumes = guests::supervisor_volumes(task);
        spec
    }

    /// Returns the spec of a container with a supervisor, without its volumes.
    pub(super) fn base_spec(&self, task: &TaskSpec, inputs: &RunInputs) -> ContainerSpec {
        let settings = self.config.docker();
        let mut spec = ContainerSpec::new(settings, task.run.to_string(), spec::supervisor_image(settings));
        spec.environment.clone_from(&inputs.environment);
        spec.stop_timeout_seconds = spec::stop_timeout_seconds(&spec.environment);
        spec.arguments = spec::arguments(inputs.has_mcp_configs);
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
        let images = self.prepare_images(&run.task, &spec.image).await?;
        if self.create_container(&spec).await? == NameClaim::AlreadyExists {
            return self.explain_conflict(&spec.name).await;
        }
        let started = self.fill_and_start(&run, &spec, &inputs, &images).await;
        if let Ok(true) = started {
            return Ok(CreateOutcome::Created(Box::new(run)));
        }
        self.rollback(&run.task).await;
        started.map(|_| CreateOutcome::AttemptTaken)
    }

    /// Pulls and checks the images of a run.
    ///
    /// Before its claim, which counts as lost if it is not started soon: a pull takes minutes. And before
    /// its volumes are created: those get their owners from the supervisor's image.
    async fn prepare_images(&self, task: &TaskSpec, supervisor: &str) -> Result<RunImages, Error> {
        let of_service = self.config.service(&task.service).image;
        let agent = spec::agent_image(self.config.docker(), of_service.as_ref());
        let supervisor = self.require_image(supervisor).await?;
        let agent = self.require_image(&agent).await?;
        let tools = self.prepare_tools(&task.service, &supervisor).await?;
        Ok(RunImages { supervisor, agent, tools })
    }

    /// Returns what a claimed name means.
    async fn explain_conflict(&self, name: &str) -> Result<CreateOutcome, Error> {
        // The other container may still be in creation, and is not listed before that is done.
        tokio::time::sleep(CREATE_POLL_INTERVAL).await;
        // If there is none, another process created and removed it: decide again.
        let Some(container) = self.inspect(name).await? else { return Ok(CreateOutcome::AttemptTaken) };
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        match labels::parse_run(&labels)? {
            Some(_) => Ok(CreateOutcome::AttemptTaken),
            None => Err(name_in_use(name)),
        }
    }

    /// Creates the rest of a run and starts it; returns false if its number was already allocated.
    async fn fill_and_start(
        &self,
        run: &StoredRun,
        spec: &ContainerSpec,
        inputs: &RunInputs,
        images: &RunImages,
    ) -> Result<bool, Error> {
        let engine = self.engine().await?;
        let (name, identity) = (spec.name.as_str(), run.task.identity());
        let numbers = AttemptNumbers::private(&engine.client, name);
        if !numbers.exist(&identity).await? {
            self.adopt_numbers(&numbers, &identity).await?;
        }
        // A run of that number may have been created and removed since the number was chosen.
        if numbers.read(&identity).await? >= run.task.attempt {
            return Ok(false);
        }
        // A killed supervisor leaves the containers of its agent, which write the same volumes.
        self.remove_leftover_guests(Some(&run.task.service)).await?;
        let guests = self.create_guests(engine, &run.task, spec, images).await?;
        numbers.store(&identity, run.task.attempt, spec.user).await?;
        inputs.archive(&run.task, spec.user)?.upload(&engine.client, name, INPUT_MOUNT_PATH).await?;
        self.start(name, &format!("start container {name} of image {}", spec.image)).await?;
        for guest in guests {
            self.start(&guest, &format!("start container {guest} of image {}", images.agent.name)).await?;
        }
        Ok(true)
    }

    /// Creates the containers of a run's agent and verify commands; returns their names.
    async fn create_guests(
        &self,
        engine: &Engine,
        task: &TaskSpec,
        supervisor: &ContainerSpec,
        images: &RunImages,
    ) -> Result<Vec<String>, Error> {
        let roles: Vec<_> = guests::roles(task).collect();
        self.prepare_workspaces(&task.service, &images.supervisor, &roles).await?;
        let guests = Guests {
            settings: self.config.docker(),
            task,
            supervisor,
            image: images.agent.name.clone(),
            tools: images.tools.clone(),
        };
        let mut names = Vec::new();
        for role in roles {
            let guest = guests.container(role);
            if self.create_container(&guest).await? == NameClaim::AlreadyExists {
                self.replace_guest(&guest).await?;
            }
            images.agent.require_glibc(&images.supervisor, &engine.client, &guest.name).await?;
            names.push(guest.name);
        }
        Ok(names)
    }

    /// Replaces a container that an earlier claim of the same run left; the name of the run is ours.
    async fn replace_guest(&self, guest: &ContainerSpec) -> Result<(), Error> {
        let existing = self.inspect(&guest.name).await?.and_then(|container| container.config?.labels);
        let ours = |labels: &std::collections::HashMap<String, String>| {
            labels.get(labels::RUN) == guest.labels.get(labels::RUN)
        };
        if existing.is_some_and(|labels| !ours(&labels)) {
            return Err(name_in_use(&guest.name));
        }
        self.remove_container(&guest.name).await?;
        match self.create_container(guest).await? {
            NameClaim::Created => Ok(()),
            NameClaim::AlreadyExists => Err(name_in_use(&guest.name)),
        }
    }

    /// Removes a run that could not be started. Its number stays allocated if it was stored.
    async fn rollback(&self, task: &TaskSpec) {
        // Leftovers are swept later; until then the run counts as lost.
        for role in ContainerRole::ALL {
            drop(self.remove_container(&guests::container(&task.run, role)).await);
        }
        // Last, since it is the claim of the other names.
        drop(self.remove_container(task.run.as_str()).await);
        drop(self.remove_run_volumes(&task.run).await);
    }
}

fn name_in_use(name: &str) -> Error {
    Error::invalid_request(format!("a container named {name} exists and was not created by the orchestrator"))
        .with_hint(format!("Rename or remove it (docker rename {name} OTHER), then submit again."))
}
