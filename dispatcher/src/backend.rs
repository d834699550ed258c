//! Backends: where runs execute.
//!
//! A backend allocates attempt numbers, starts runs, streams their events, stops and removes them.
//! [`crate::task::decide`] decides what a submission means.

pub mod credentials;
pub mod docker;
pub mod kubernetes;
pub mod local;

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::Timestamp;
use orchestrator_contract::{Event, RunName, ServiceName, TaskKey, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::Excerpt;
use crate::task::check::Check;
use crate::task::request::Request;
use crate::task::resolve::TaskDraft;
use crate::task::status::{DamagedRun, Status};
use crate::task::stop_mode::StopMode;
use crate::task::workspace::FoundWorkspace;

/// The metadata of a submission.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SubmissionRecord {
    /// Format version.
    pub version: u32,
    /// Name of the backend.
    pub backend: String,
    pub submitted_at: Timestamp,
    /// The request as submitted, before defaults.
    pub request: Request,
}

/// A run as stored by its backend.
#[derive(Clone, Debug)]
pub struct StoredRun {
    pub record: SubmissionRecord,
    pub task: TaskSpec,
}

/// Arguments of [`Backend::create`].
#[derive(Clone, Copy, Debug)]
pub struct CreateRun<'a> {
    /// Task key of the run.
    pub identity: &'a TaskKey,
    /// Attempt number, above all that were known when it was chosen.
    pub attempt: u32,
    pub draft: &'a TaskDraft,
    pub request: &'a Request,
}

/// Result of [`Backend::create`].
#[derive(Clone, Debug)]
pub enum CreateOutcome {
    /// The run exists and is starting.
    Created(Box<StoredRun>),
    /// Another submission allocated the number first: decide again.
    AttemptTaken,
}

/// An artifact in the workspace. The supervisor redacted it when it wrote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Artifact {
    /// The agent's transcript; its tail if it is long.
    Transcript,
    /// The diff of the run's branch; its head if it is long.
    Diff,
}

/// Maximum bytes to read of an artifact.
const MAX_ARTIFACT_BYTES: u64 = 1024 * 1024;

/// A platform that executes runs.
///
/// All methods may be called by several processes concurrently; the backend ensures that a number is
/// allocated and a run is created only once.
#[async_trait]
pub trait Backend: Debug + Send + Sync {
    /// Returns the backend's name in the configuration.
    fn name(&self) -> &'static str;

    /// Describes where runs are stored, for messages.
    fn location(&self) -> String;

    /// Describes the workspace of a service: a folder, a volume or a PVC.
    fn workspace(&self, service: &ServiceName) -> String;

    /// Returns the platform's own command for a run, such as `docker logs -f RUN`.
    fn native_command(&self, _run: &RunName) -> Option<String> {
        None
    }

    /// Returns all complete runs, newest first.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    async fn runs(&self) -> Result<Vec<StoredRun>, Error>;

    /// Returns the runs that [`Self::runs`] omits because their record is damaged.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    async fn damaged(&self) -> Result<Vec<DamagedRun>, Error>;

    /// Returns a run; `None` if it does not exist or is incomplete.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    async fn run(&self, name: &RunName) -> Result<Option<StoredRun>, Error>;

    /// Follows a run from its first event.
    fn follow(&self, run: StoredRun) -> Box<dyn RunFollower>;

    /// Returns the current status of a run.
    ///
    /// # Errors
    /// Returns an error if the run's events cannot be read.
    async fn status(&self, run: StoredRun, now: Timestamp) -> Result<Status, Error> {
        self.follow(run).status(now, &mut |_, _| {}).await
    }

    /// Returns the highest attempt number ever allocated for a task key; 0 if none.
    ///
    /// # Errors
    /// Returns an error if the stored number cannot be read.
    async fn last_attempt(&self, identity: &TaskKey) -> Result<u32, Error>;

    /// Creates and starts a run. Its number stays allocated even if the start fails.
    ///
    /// # Errors
    /// Returns an error if the run cannot be created or started; its record is then removed.
    async fn create(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error>;

    /// Returns the name that an attempt would have now.
    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName;

    /// Checks the platform's requirements for runs. Changes nothing.
    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }

    /// Returns an artifact of a run; `None` if it does not exist yet.
    ///
    /// # Errors
    /// Returns an error if the artifact cannot be read.
    async fn artifact(&self, run: &StoredRun, artifact: Artifact) -> Result<Option<Excerpt>, Error>;

    /// Returns the command line that starts a run, for display. Writes nothing.
    ///
    /// # Errors
    /// Returns an error if a required program or file is missing.
    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error>;

    /// Requests a run to stop; idempotent.
    ///
    /// # Errors
    /// Returns an error if the request cannot be delivered.
    async fn request_stop(&self, run: &StoredRun, mode: StopMode) -> Result<(), Error>;

    /// Removes leftovers of interrupted removals.
    ///
    /// # Errors
    /// Returns an error if something cannot be removed.
    async fn sweep(&self) -> Result<(), Error>;

    /// Returns the bytes of a run's record, log and transcript.
    async fn size(&self, run: &StoredRun) -> u64;

    /// Returns the workspaces of services. Changes nothing.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    async fn workspaces(&self) -> Result<Vec<FoundWorkspace>, Error>;

    /// Removes the workspace of a service, except its attempt numbers; returns false if a run uses it.
    ///
    /// # Errors
    /// Returns an error if something cannot be removed; the next removal or [`Self::sweep`] continues.
    async fn remove_workspace(&self, service: &ServiceName) -> Result<bool, Error>;

    /// Removes the record, log and transcript of a finished run; returns false if it is still alive.
    ///
    /// # Errors
    /// Returns an error if something cannot be removed.
    async fn remove(&self, run: &StoredRun) -> Result<bool, Error>;
}

/// Callback for each new event of a run, with its JSON line.
pub type OnEvent<'a> = dyn FnMut(&Event, &str) + Send + 'a;

/// A reader of a run's events that keeps its position.
#[async_trait]
pub trait RunFollower: Send {
    /// Reads new events, passes each to `each`, and returns the current status.
    ///
    /// # Errors
    /// Returns an error if the run's events cannot be read.
    async fn status(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error>;
}
