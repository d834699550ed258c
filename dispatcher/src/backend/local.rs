//! Runs as supervised processes on this machine, without a daemon.
//!
//! All state is files below one root; readers tolerate incomplete ones. A supervisor is alive while
//! its lock is held; PIDs are not stored.
//!
//! ```text
//! workspaces/workspace-{service}/   the workspace of a service
//! runs/{run}/
//!     lock           held by the supervisor, as its stdin
//!     task.json      the task spec
//!     record.json    the submission; the run exists once this file does
//!     events.jsonl   the supervisor's stdout
//!     stderr.log     the supervisor's stderr
//!     stop           created to request a stop
//!     lost.json      when the run was found lost
//! ```

mod attempts;
mod follow;
mod handle;
pub mod launch;
mod lock;
mod store;
mod workspaces;

use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use orchestrator_contract::{RunName, ServiceName, TaskKey, TaskSpec};

pub use handle::Local;

use self::follow::Follower;
use self::launch::SupervisorCommand;
use super::{
    Artifact, Backend, CreateOutcome, CreateRun, MAX_ARTIFACT_BYTES, RunFollower, StoredRun, SubmissionRecord,
};
use crate::error::Error;
use crate::files::{self, Excerpt};
use crate::task::status::{DamagedRun, Status};
use crate::task::stop_mode::StopMode;
use crate::task::workspace::FoundWorkspace;

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

    async fn damaged(&self) -> Result<Vec<DamagedRun>, Error> {
        self.damaged_records()
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
        launch.add_gh_token(&self.config, &preview).await;
        let lock = self.lock_submissions(&identity.service).await?;
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
        // After the record: a submission that sees the number must also see the run.
        lock.record_attempt(identity, attempt).inspect_err(|_| prepared.run.discard())?;
        let run = StoredRun::from(prepared.run.clone());
        self.spawn(prepared, &launch)?;
        Ok(CreateOutcome::Created(Box::new(run)))
    }

    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName {
        identity.run_name(attempt, |name| self.run_folder(name).exists())
    }

    async fn artifact(&self, run: &StoredRun, artifact: Artifact) -> Result<Option<Excerpt>, Error> {
        let record = self.layout(&run.task.service).run_dir(&run.task.run);
        match artifact {
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

    async fn request_stop(&self, run: &StoredRun, mode: StopMode) -> Result<(), Error> {
        self.stored(run.clone()).request_stop(mode)
    }

    async fn sweep(&self) -> Result<(), Error> {
        self.sweep_records()?;
        self.sweep_workspaces().await
    }

    async fn workspaces(&self) -> Result<Vec<FoundWorkspace>, Error> {
        self.found_workspaces()
    }

    async fn remove_workspace(&self, service: &ServiceName) -> Result<bool, Error> {
        self.removed_workspace(service).await
    }

    async fn size(&self, run: &StoredRun) -> u64 {
        files::size(&self.folder_in_workspace(run)) + files::size(&self.run_folder(&run.task.run))
    }

    async fn remove(&self, run: &StoredRun) -> Result<bool, Error> {
        // Prevents a retry of the run while its record is removed.
        let lock = self.lock_submissions(&run.task.service).await?;
        lock.record_attempt(&run.task.identity(), run.task.attempt)?;
        if !self.stored(run.clone()).remove()? {
            return Ok(false);
        }
        let folder = self.folder_in_workspace(run);
        if folder.is_dir() {
            std::fs::remove_dir_all(&folder).map_err(|error| files::problem("remove", &folder, &error))?;
        }
        Ok(true)
    }
}

impl Local {
    /// Returns the run's folder in the workspace: log and transcript.
    fn folder_in_workspace(&self, run: &StoredRun) -> PathBuf {
        self.layout(&run.task.service).run_dir(&run.task.run).folder().to_owned()
    }
}
