//! Runs as containers of docker or podman.
//!
//! The engine holds all state: a container is the run, its labels are the record, its log the events.
//! Whoever asks it again, after a restart of this program or of the engine, is told the same.
//!
//! | | |
//! |---|---|
//! | container `{run}` | one attempt; making it takes the attempt's number |
//! | volume `workspace-{service}` | the persistent folder of a service; never removed here |
//! | volume `{run}-input` | task and secrets of one run; goes with its container |

mod archive;
mod attempts;
mod cleanup;
mod command_line;
mod connect;
mod create;
mod debug;
mod doctor;
mod follow;
mod inputs;
mod labels;
mod spec;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::{ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use jiff::Timestamp;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{RunName, ServiceName, TaskKey, TaskSpec};
use tokio::sync::OnceCell;

pub(crate) use command_line::quote;
pub use debug::{CommandLine, DebugOptions, DebugRun, DebugVolume, Shell};

use self::command_line::{Terminal, compose_arguments};
use self::connect::{Engine, problem, status};
use self::follow::{ContainerLiveness, Follower, liveness};
use self::inputs::RunInputs;
use self::labels::{HELPER, RUN, SERVICE};
use super::{Artifact, Backend, CreateOutcome, CreateRun, MAX_ARTIFACT_BYTES, RunFollower, StoredRun};
use crate::config::Config;
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::check::Check;
use crate::task::event_fold::Liveness;
use crate::task::status::Status;
use crate::task::stop_mode::StopMode;

/// The docker backend.
#[derive(Clone, Debug)]
pub struct Docker {
    config: Arc<Config>,
    /// Found when it is needed: whoever only starts this program needs none.
    engine: Arc<OnceCell<Engine>>,
}

impl Docker {
    /// The backend over the engine that the configuration names. Connects to nothing yet.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, engine: Arc::new(OnceCell::new()) }
    }

    async fn engine(&self) -> Result<&Engine, Error> {
        self.engine.get_or_try_init(|| connect::connect(&self.config)).await
    }

    /// Our containers that have all of these labels.
    async fn containers(&self, filter: Vec<String>) -> Result<Vec<bollard::models::ContainerSummary>, Error> {
        let filters = HashMap::from([("label".to_owned(), filter)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let client = &self.engine().await?.client;
        client.list_containers(Some(options)).await.map_err(|error| problem("list containers", &error))
    }

    /// The container of a name; none if there is none.
    async fn inspect(&self, name: &str) -> Result<Option<bollard::models::ContainerInspectResponse>, Error> {
        match self.engine().await?.client.inspect_container(name, None).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(problem(&format!("look at container {name}"), &error)),
        }
    }

    /// Whether a run lives.
    async fn look(&self, run: &RunName, now: Timestamp) -> Result<ContainerLiveness, Error> {
        if let Some(container) = self.inspect(run.as_str()).await? {
            let made_at = container.created.as_deref().and_then(|at| at.parse().ok());
            return Ok(liveness(&container.state.unwrap_or_default(), made_at, now));
        }
        // An engine lists a container while it is still making it, and shows it alone only afterwards.
        let listed = self.containers(vec![format!("{RUN}={run}")]).await?.into_iter().next();
        let made_at = listed.as_ref().and_then(|container| Timestamp::from_second(container.created?).ok());
        let status = listed.map(|_| ContainerStateStatusEnum::CREATED);
        Ok(liveness(&ContainerState { status, ..ContainerState::default() }, made_at, now))
    }
}

/// A run's number, if it is an attempt of an identity.
fn attempt_of(run: &StoredRun, identity: &TaskKey) -> Option<u32> {
    (run.task.identity() == *identity).then_some(run.task.attempt)
}

#[async_trait]
impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn location(&self) -> String {
        match self.engine.get() {
            Some(engine) => format!("the containers of {}", engine.address),
            None => "the containers".to_owned(),
        }
    }

    fn workspace(&self, service: &ServiceName) -> String {
        format!("volume {}", spec::workspace(service))
    }

    fn native_command(&self, run: &RunName) -> Option<String> {
        Some(format!("docker logs -f {run}"))
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, Error> {
        let containers = self.containers(vec![RUN.to_owned()]).await?;
        let mut runs: Vec<StoredRun> = containers
            .into_iter()
            // A damaged one is told of when it is asked for by its name.
            .filter_map(|container| labels::parse_run(&container.labels?).ok().flatten())
            .collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    async fn run(&self, name: &RunName) -> Result<Option<StoredRun>, Error> {
        let Some(container) = self.inspect(name.as_str()).await? else { return Ok(None) };
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        labels::parse_run(&labels)
    }

    fn follow(&self, run: StoredRun) -> Box<dyn RunFollower> {
        Box::new(Follower::new(self.clone(), run))
    }

    async fn status(&self, run: StoredRun, now: Timestamp) -> Result<Status, Error> {
        Follower::new(self.clone(), run).status_once(now).await
    }

    async fn last_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        self.highest_attempt(identity).await
    }

    async fn create(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error> {
        self.create_run(new).await
    }

    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        self.unused_run_name(identity, attempt).await
    }

    async fn check(&self) -> Vec<Check> {
        self.check_engine().await
    }

    async fn artifact(&self, run: &StoredRun, piece: Artifact) -> Result<Option<Excerpt>, Error> {
        let record = Layout::new(spec::WORKSPACE).run_dir(&run.task.run);
        let path = match piece {
            Artifact::Transcript => record.transcript(),
            Artifact::Diff => record.diff(),
        };
        let client = &self.engine().await?.client;
        let bytes = archive::read(client, run.task.run.as_str(), &path.to_string_lossy()).await?;
        let most = usize::try_from(MAX_ARTIFACT_BYTES).unwrap_or(usize::MAX);
        Ok(bytes.map(|bytes| match piece {
            Artifact::Transcript => Excerpt::tail(bytes, most),
            Artifact::Diff => Excerpt::head(bytes, most),
        }))
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error> {
        let gift = RunInputs::collect(&self.config, task).await?;
        let spec = self.spec(task, &gift);
        let words = compose_arguments(&spec, Terminal::No);
        Ok(std::iter::once("docker".to_owned()).chain(words).collect())
    }

    async fn request_stop(&self, run: &StoredRun, manner: StopMode) -> Result<(), Error> {
        inputs::ask_to_stop(&self.engine().await?.client, run.task.run.as_str(), manner).await
    }

    async fn sweep(&self) -> Result<(), Error> {
        self.sweep_engine().await
    }

    async fn size(&self, run: &StoredRun) -> u64 {
        self.size_of(run).await
    }

    async fn remove(&self, run: &StoredRun) -> Result<bool, Error> {
        if self.look(&run.task.run, Timestamp::now()).await?.life == Liveness::Alive {
            return Ok(false);
        }
        self.remove_run(run).await
    }
}

impl Docker {
    /// The highest attempt number ever given out to an identity, as containers and volume tell.
    async fn highest_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let known = self.runs().await?.iter().filter_map(|run| attempt_of(run, identity)).max();
        Ok(known.unwrap_or_default().max(self.mark_in_volume(identity).await?))
    }

    /// The mark in the service's volume, read through whatever container of ours has it.
    async fn mark_in_volume(&self, identity: &TaskKey) -> Result<u32, Error> {
        let engine = self.engine().await?;
        let service = &identity.service;
        let any = self.containers(vec![format!("{SERVICE}={service}"), RUN.to_owned()]).await?;
        let any = any
            .into_iter()
            .filter(|container| container.labels.as_ref().is_some_and(|labels| !labels.contains_key(HELPER)));
        if let Some(id) = any.filter_map(|container| container.id).next() {
            return attempts::read(&engine.client, &id, identity).await;
        }
        let volume = spec::workspace(service);
        match engine.client.inspect_volume(&volume).await {
            Ok(_) => {}
            Err(error) if status(&error) == Some(404) => return Ok(0),
            Err(error) => return Err(problem(&format!("look at volume {volume}"), &error)),
        }
        let helper = self.create_helper(service, None, &[]).await?;
        let mark = attempts::read(&engine.client, &helper, identity).await;
        self.remove_container(&helper).await?;
        mark
    }
}
