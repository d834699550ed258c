//! Runs as containers of docker or podman.
//!
//! The engine holds all state: a container is the run, its labels are the record, its log the events.
//! Whoever asks it again, after a restart of this program or of the engine, is told the same.
//!
//! | | |
//! |---|---|
//! | container `{run}` | one attempt; making it takes the attempt's number |
//! | volume `workspace-{service}` | the persistent folder of a service; never removed here |
//! | volume `{run}-given` | task and secrets of one run; goes with its container |

mod archive;
mod attempts;
mod command_line;
mod connect;
mod create;
mod debug;
mod doctor;
mod follow;
mod given;
mod labels;
mod spec;
mod tidy;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::{ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use jiff::Timestamp;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{Identity, RunName, ServiceName, TaskSpec};
use tokio::sync::OnceCell;

pub(crate) use command_line::quote;
pub use debug::{CommandLine, DebugVolume, DebugWish, Debugging, Shell};

use self::command_line::{Terminal, compose_arguments};
use self::connect::{Engine, problem, status};
use self::follow::{Follower, Look, tell_life};
use self::given::Gift;
use self::labels::{HELPER, RUN, SERVICE};
use super::{Backend, Creation, Follow, Manner, NewRun, PIECE_MAX, Piece, Run};
use crate::config::Config;
use crate::files::Excerpt;
use crate::problem::Problem;
use crate::task::check::Check;
use crate::task::observe::Life;
use crate::task::status::Status;

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

    async fn engine(&self) -> Result<&Engine, Problem> {
        self.engine.get_or_try_init(|| connect::connect(&self.config)).await
    }

    /// Our containers that have all of these labels.
    async fn containers(
        &self,
        filter: Vec<String>,
    ) -> Result<Vec<bollard::models::ContainerSummary>, Problem> {
        let filters = HashMap::from([("label".to_owned(), filter)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let client = &self.engine().await?.client;
        client.list_containers(Some(options)).await.map_err(|error| problem("list containers", &error))
    }

    /// The container of a name; none if there is none.
    async fn inspect(
        &self,
        name: &str,
    ) -> Result<Option<bollard::models::ContainerInspectResponse>, Problem> {
        match self.engine().await?.client.inspect_container(name, None).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(problem(&format!("look at container {name}"), &error)),
        }
    }

    /// Whether a run lives.
    async fn look(&self, run: &RunName, now: Timestamp) -> Result<Look, Problem> {
        if let Some(container) = self.inspect(run.as_str()).await? {
            let made_at = container.created.as_deref().and_then(|at| at.parse().ok());
            return Ok(tell_life(&container.state.unwrap_or_default(), made_at, now));
        }
        // An engine lists a container while it is still making it, and shows it alone only afterwards.
        let listed = self.containers(vec![format!("{RUN}={run}")]).await?.into_iter().next();
        let made_at = listed.as_ref().and_then(|container| Timestamp::from_second(container.created?).ok());
        let status = listed.map(|_| ContainerStateStatusEnum::CREATED);
        Ok(tell_life(&ContainerState { status, ..ContainerState::default() }, made_at, now))
    }
}

/// A run's number, if it is an attempt of an identity.
fn attempt_of(run: &Run, identity: &Identity) -> Option<u32> {
    (run.task.identity() == *identity).then_some(run.task.attempt)
}

#[async_trait]
impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn place(&self) -> String {
        match self.engine.get() {
            Some(engine) => format!("the containers of {}", engine.address),
            None => "the containers".to_owned(),
        }
    }

    fn workspace(&self, service: &ServiceName) -> String {
        format!("volume {}", spec::workspace(service))
    }

    fn elsewhere(&self, run: &RunName) -> Option<String> {
        Some(format!("docker logs -f {run}"))
    }

    async fn runs(&self) -> Result<Vec<Run>, Problem> {
        let containers = self.containers(vec![RUN.to_owned()]).await?;
        let mut runs: Vec<Run> = containers
            .into_iter()
            // A damaged one is told of when it is asked for by its name.
            .filter_map(|container| labels::parse_run(&container.labels?).ok().flatten())
            .collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    async fn run(&self, name: &RunName) -> Result<Option<Run>, Problem> {
        let Some(container) = self.inspect(name.as_str()).await? else { return Ok(None) };
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        labels::parse_run(&labels)
    }

    fn follow(&self, run: Run) -> Box<dyn Follow> {
        Box::new(Follower::new(self.clone(), run))
    }

    async fn status(&self, run: Run, now: Timestamp) -> Result<Status, Problem> {
        Follower::new(self.clone(), run).look_once(now).await
    }

    async fn mark(&self, identity: &Identity) -> Result<u32, Problem> {
        self.highest_attempt(identity).await
    }

    async fn create(&self, new: NewRun<'_>) -> Result<Creation, Problem> {
        self.create_run(new).await
    }

    async fn name_of(&self, identity: &Identity, attempt: u32) -> RunName {
        self.name_for(identity, attempt).await
    }

    async fn check(&self) -> Vec<Check> {
        self.check_engine().await
    }

    async fn piece(&self, run: &Run, piece: Piece) -> Result<Option<Excerpt>, Problem> {
        let record = Layout::new(spec::WORKSPACE).run(&run.task.run);
        let path = match piece {
            Piece::Transcript => record.transcript(),
            Piece::Diff => record.diff(),
        };
        let client = &self.engine().await?.client;
        let bytes = archive::read(client, run.task.run.as_str(), &path.to_string_lossy()).await?;
        let most = usize::try_from(PIECE_MAX).unwrap_or(usize::MAX);
        Ok(bytes.map(|bytes| match piece {
            Piece::Transcript => Excerpt::end_of(bytes, most),
            Piece::Diff => Excerpt::start_of(bytes, most),
        }))
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Problem> {
        let gift = Gift::gather(&self.config, task).await?;
        let spec = self.spec(task, &gift);
        let words = compose_arguments(&spec, Terminal::No);
        Ok(std::iter::once("docker".to_owned()).chain(words).collect())
    }

    async fn ask_to_stop(&self, run: &Run, manner: Manner) -> Result<(), Problem> {
        given::ask_to_stop(&self.engine().await?.client, run.task.run.as_str(), manner).await
    }

    async fn sweep(&self) -> Result<(), Problem> {
        self.sweep_engine().await
    }

    async fn size(&self, run: &Run) -> u64 {
        self.size_of(run).await
    }

    async fn remove(&self, run: &Run) -> Result<bool, Problem> {
        if self.look(&run.task.run, Timestamp::now()).await?.life == Life::Alive {
            return Ok(false);
        }
        self.remove_run(run).await
    }
}

impl Docker {
    /// The highest attempt number ever given out to an identity, as containers and volume tell.
    async fn highest_attempt(&self, identity: &Identity) -> Result<u32, Problem> {
        let known = self.runs().await?.iter().filter_map(|run| attempt_of(run, identity)).max();
        Ok(known.unwrap_or_default().max(self.mark_in_volume(identity).await?))
    }

    /// The mark in the service's volume, read through whatever container of ours has it.
    async fn mark_in_volume(&self, identity: &Identity) -> Result<u32, Problem> {
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
        let helper = self.make_helper(service, None, &[]).await?;
        let mark = attempts::read(&engine.client, &helper, identity).await;
        self.drop_container(&helper).await?;
        mark
    }
}
