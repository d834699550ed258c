//! Runs as supervised processes on this machine: no daemon, no cluster.
//!
//! All state is files below one root; whoever reads them tolerates half-made
//! ones. Whether a supervisor lives is told by a lock that it inherits, never
//! by a process id.
//!
//! ```text
//! workspaces/workspace-{service}/   the persistent folder of a service
//! runs/{run}/
//!     lock           held as long as the supervisor lives: it is its stdin
//!     task.json      what the supervisor was asked to do
//!     record.json    what was asked for, and when: the run exists once this does
//!     events.jsonl   the supervisor's stdout
//!     stderr.log     its last words, if it could not say them properly
//!     stop           appears when somebody wants it to stop
//!     lost.json      when it was found to have ended without an outcome
//! ```

mod attempts;
mod follow;
pub mod launch;
mod lock;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use orchestrator_contract::{RunName, ServiceName, TaskKey, TaskSpec};

use self::follow::Follower;
use self::launch::SupervisorCommand;
use super::{
    Artifact, Backend, CreateOutcome, CreateRun, MAX_ARTIFACT_BYTES, RunFollower, StoredRun, SubmissionRecord,
};
use crate::config::Config;
use crate::error::Error;
use crate::files::{self, Excerpt};
use crate::task::status::Status;
use crate::task::stop_mode::StopMode;

/// The local backend.
#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
    config: Arc<Config>,
}

impl Local {
    /// The backend whose state is below the configuration's state folder.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { root: config.state_dir.clone(), config }
    }
}

#[async_trait]
impl Backend for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn workspace(&self, service: &ServiceName) -> String {
        self.layout(service).root().display().to_string()
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, Error> {
        Ok(self.stored_runs()?.into_iter().map(StoredRun::from).collect())
    }

    async fn run(&self, name: &RunName) -> Result<Option<StoredRun>, Error> {
        Ok(self.stored_run(name)?.map(StoredRun::from))
    }

    fn follow(&self, run: StoredRun) -> Box<dyn RunFollower> {
        Box::new(Follower::new(self.clone(), self.stored(run)))
    }

    async fn status(&self, run: StoredRun, now: Timestamp) -> Result<Status, Error> {
        Follower::new(self.clone(), self.stored(run)).seek_to_tail()?.status(now, &mut |_, _| {}).await
    }

    async fn last_attempt(&self, identity: &TaskKey) -> Result<u32, Error> {
        self.highest_attempt(identity)
    }

    async fn create(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error> {
        let CreateRun { identity, attempt, draft, request } = new;
        let preview = draft.with_attempt(identity.run_name(attempt, |_| false), attempt);
        let mut launch = SupervisorCommand::prepare(&self.config, &preview)?;
        launch.add_token_of_gh(&self.config, &preview).await;
        let gate = self.lock_submissions(&identity.service).await?;
        if self.highest_attempt(identity)? >= attempt {
            return Ok(CreateOutcome::AttemptTaken);
        }
        let record = SubmissionRecord {
            version: 1,
            backend: self.name().to_owned(),
            submitted_at: Timestamp::now(),
            request: request.clone(),
        };
        let prepared = self.prepare(identity, attempt, record, |run| draft.with_attempt(run, attempt))?;
        // After the record: whoever sees the mark sees the run too, and decides about it.
        gate.record_attempt(identity, attempt).inspect_err(|_| prepared.run.discard())?;
        let run = StoredRun::from(prepared.run.clone());
        self.spawn(prepared, &launch)?;
        Ok(CreateOutcome::Created(Box::new(run)))
    }

    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        identity.run_name(attempt, |name| self.run_folder(name).exists())
    }

    async fn artifact(&self, run: &StoredRun, piece: Artifact) -> Result<Option<Excerpt>, Error> {
        let record = self.layout(&run.task.service).run_dir(&run.task.run);
        match piece {
            Artifact::Transcript => files::read_tail(&record.transcript(), MAX_ARTIFACT_BYTES),
            Artifact::Diff => files::read_head(&record.diff(), MAX_ARTIFACT_BYTES),
        }
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error> {
        let launch = SupervisorCommand::prepare(&self.config, task)?;
        let layout = self.layout(&task.service);
        let arguments = launch.arguments(&self.run_folder(&task.run), layout.root());
        let line = std::iter::once(launch.supervisor.as_os_str()).chain(arguments.iter().map(AsRef::as_ref));
        Ok(line.map(|argument| argument.to_string_lossy().into_owned()).collect())
    }

    async fn request_stop(&self, run: &StoredRun, manner: StopMode) -> Result<(), Error> {
        self.stored(run.clone()).ask_to_stop(manner)
    }

    async fn sweep(&self) -> Result<(), Error> {
        self.sweep_records()
    }

    async fn size(&self, run: &StoredRun) -> u64 {
        let folders = self.folders_in_workspace(run);
        folders.iter().chain([&self.run_folder(&run.task.run)]).map(|folder| files::size(folder)).sum()
    }

    async fn remove(&self, run: &StoredRun) -> Result<bool, Error> {
        // Nobody may be starting a retry of the run whose record goes.
        let gate = self.lock_submissions(&run.task.service).await?;
        gate.record_attempt(&run.task.identity(), run.task.attempt)?;
        if !self.stored(run.clone()).remove()? {
            return Ok(false);
        }
        for folder in self.folders_in_workspace(run).iter().filter(|folder| folder.is_dir()) {
            std::fs::remove_dir_all(folder).map_err(|error| files::problem("remove", folder, &error))?;
        }
        Ok(true)
    }
}

impl Local {
    /// What the workspace keeps of a run: its log and transcript, and the agent's home in it.
    fn folders_in_workspace(&self, run: &StoredRun) -> [PathBuf; 2] {
        let (layout, name) = (self.layout(&run.task.service), &run.task.run);
        [layout.run_dir(name).folder().to_owned(), layout.agent_home(name)]
    }
}
