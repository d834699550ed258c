//! Runs as docker or podman containers.
//!
//! The engine holds all state: a container is a run, its labels are the record, its log the events.
//! The dispatcher and the engine may restart at any time.
//!
//! | object | content |
//! |---|---|
//! | container `{run}` | supervisor of one attempt; creating it allocates the attempt number |
//! | containers `{run}-agent`, `{run}-verify` | untrusted programs; removed when the supervisor has ended |
//! | volumes `workspace-{service}`, `….verify`, `….private`, `….shared` | the workspace of a service; removed by `gc --workspaces` only |
//! | volume `{run}-input` | task and secrets of one run; removed with its container |
//! | volumes `{run}-agent-socket`, `{run}-verify-socket` | connection of supervisor and guest; removed with the run |
//! | volume `orchestrator-tools-{image}` | programs of guests; removed after its image |
//!
//! [`orchestrator_contract::containers`] says which container mounts which volume.

mod archive;
mod attempts;
mod cleanup;
mod command_line;
mod connect;
mod create;
mod debug;
mod doctor;
mod follow;
mod guests;
mod handle;
mod images;
mod inputs;
mod labels;
mod liveness;
mod objects;
mod spec;
mod volumes;
mod workspaces;

use async_trait::async_trait;
use bollard::models::ContainerSummary;
use jiff::Timestamp;
use orchestrator_contract::containers::ContainerRole;
use orchestrator_contract::layout::Layout;
use orchestrator_contract::{RunName, ServiceName, TaskKey, TaskSpec};

pub(crate) use command_line::quote;
pub use debug::{CommandLine, DebugOptions, DebugRun, DebugVolume, Shell};
pub use handle::Docker;

use self::attempts::AttemptNumbers;
use self::command_line::{Terminal, build_arguments};
use self::follow::Follower;
use self::handle::attempt_of;
use self::inputs::RunInputs;
use self::labels::RUN;
use super::{Artifact, Backend, CreateOutcome, CreateRun, MAX_ARTIFACT_BYTES, RunFollower, StoredRun};
use crate::error::Error;
use crate::files::Excerpt;
use crate::task::check::Check;
use crate::task::event_fold::Liveness;
use crate::task::status::{DamagedRun, Status};
use crate::task::stop_mode::StopMode;
use crate::task::workspace::FoundWorkspace;

#[async_trait]
impl Backend for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn location(&self) -> String {
        match self.engine.get() {
            Some(engine) => format!("containers of {}", engine.address),
            None => "containers".to_owned(),
        }
    }

    fn workspace(&self, service: &ServiceName) -> String {
        format!("volume {}", guests::tree_volume(service))
    }

    fn native_command(&self, run: &RunName) -> Option<String> {
        Some(format!("docker logs -f {run}"))
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, Error> {
        let containers = self.containers(vec![RUN.to_owned()]).await?;
        let mut runs: Vec<StoredRun> = containers
            .into_iter()
            .filter_map(|container| labels::parse_run(&container.labels?).ok().flatten())
            .collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    async fn damaged(&self) -> Result<Vec<DamagedRun>, Error> {
        let damaged = |container: ContainerSummary| {
            let problem = labels::parse_run(&container.labels?).err()?.to_string();
            let name = container.names?.into_iter().next()?;
            Some(DamagedRun { run: name.trim_start_matches('/').to_owned(), problem })
        };
        Ok(self.containers(vec![RUN.to_owned()]).await?.into_iter().filter_map(damaged).collect())
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

    async fn artifact(&self, run: &StoredRun, artifact: Artifact) -> Result<Option<Excerpt>, Error> {
        let record = Layout::of_containers().run_dir(&run.task.run);
        let path = match artifact {
            Artifact::Transcript => record.transcript(),
            Artifact::Diff => record.diff(),
        };
        let client = &self.engine().await?.client;
        let bytes = archive::read(client, run.task.run.as_str(), &path.to_string_lossy()).await?;
        let max = usize::try_from(MAX_ARTIFACT_BYTES).unwrap_or(usize::MAX);
        Ok(bytes.map(|bytes| match artifact {
            Artifact::Transcript => Excerpt::tail(bytes, max),
            Artifact::Diff => Excerpt::head(bytes, max),
        }))
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error> {
        let inputs = RunInputs::collect(&self.config, task).await?;
        let spec = self.spec(task, &inputs);
        let words = build_arguments(&spec, Terminal::No);
        Ok(std::iter::once("docker".to_owned()).chain(words).collect())
    }

    async fn request_stop(&self, run: &StoredRun, mode: StopMode) -> Result<(), Error> {
        inputs::request_stop(&self.engine().await?.client, run.task.run.as_str(), mode).await
    }

    async fn sweep(&self) -> Result<(), Error> {
        self.sweep_engine().await
    }

    async fn workspaces(&self) -> Result<Vec<FoundWorkspace>, Error> {
        self.found_workspaces().await
    }

    async fn remove_workspace(&self, service: &ServiceName) -> Result<bool, Error> {
        self.removed_workspace(service).await
    }

    async fn size(&self, run: &StoredRun) -> u64 {
        self.run_size(run).await
    }

    async fn remove(&self, run: &StoredRun) -> Result<bool, Error> {
        if self.probe(&run.task.run, Timestamp::now()).await?.liveness == Liveness::Alive {
            return Ok(false);
        }
        self.remove_run(run).await
    }
}

impl Docker {
    /// Returns the highest attempt number ever allocated for a task key, from containers and volume.
    async fn highest_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let known = self.runs().await?.iter().filter_map(|run| attempt_of(run, identity)).max();
        Ok(known.unwrap_or_default().max(self.stored_attempt(identity).await?))
    }

    /// Reads the stored attempt number through any container with the service's private volume.
    async fn stored_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let engine = self.engine().await?;
        let service = &identity.service;
        let volume = guests::private_volume(service);
        if let Some(id) = self.supervisor_with(service, &volume).await? {
            return AttemptNumbers::private(&engine.client, &id).read(identity).await;
        }
        if !self.has_volume(&volume).await? {
            return self.former_attempt(identity).await;
        }
        let image = spec::supervisor_image(self.config.docker());
        let helper = self.create_helper(service, image, vec![guests::private_mount(service)], &[]).await?;
        let numbers = AttemptNumbers::private(&engine.client, &helper);
        let stored = async {
            Ok(if numbers.exist(identity).await? { Some(numbers.read(identity).await?) } else { None })
        };
        let stored: Result<Option<u32>, Error> = stored.await;
        self.remove_container(&helper).await?;
        match stored? {
            Some(attempt) => Ok(attempt),
            None => self.former_attempt(identity).await,
        }
    }

    /// Reads the number that a former version stored in the volume of the worktree.
    ///
    /// Only before the first run with an agent in its own container, which can write that volume.
    async fn former_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        let Some(helper) = self.former_workspace(&identity.service).await? else { return Ok(0) };
        let client = &self.engine().await?.client;
        let stored = AttemptNumbers::workspace(client, &helper).read(identity).await;
        self.remove_container(&helper).await?;
        stored
    }

    /// Copies the numbers that a former version stored; the caller has checked that there are no others.
    async fn adopt_numbers(&self, numbers: &AttemptNumbers<'_>, identity: &TaskKey) -> Result<(), Error> {
        let Some(helper) = self.former_workspace(&identity.service).await? else { return Ok(()) };
        let client = &self.engine().await?.client;
        let copied = AttemptNumbers::workspace(client, &helper).copy_to(numbers, identity).await;
        self.remove_container(&helper).await?;
        copied
    }

    /// Returns a new helper with the volume of a service's worktree; `None` if there is no such volume.
    async fn former_workspace(&self, service: &ServiceName) -> Result<Option<String>, Error> {
        let tree = guests::workspace_mount(service, ContainerRole::Agent).unpopulated();
        if !self.has_volume(&tree.name).await? {
            return Ok(None);
        }
        let image = spec::supervisor_image(self.config.docker());
        Ok(Some(self.create_helper(service, image, vec![tree], &[]).await?))
    }
}
