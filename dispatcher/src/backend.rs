//! Where runs run, and what every such place can do.
//!
//! A backend gives out attempt numbers, starts runs, tells what they tell, asks
//! them to stop and forgets them. What a submission means is decided above it,
//! by [`crate::task::decide`].

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
use crate::task::status::Status;
use crate::task::stop_mode::StopMode;

/// What was asked for, and when.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SubmissionRecord {
    /// The version of this form.
    pub version: u32,
    /// Where the run runs.
    pub backend: String,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// What was asked for.
    pub request: Request,
}

/// A run as its backend keeps it.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// What was asked for.
    pub record: SubmissionRecord,
    /// What the supervisor was asked to do.
    pub task: TaskSpec,
}

/// A run that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct CreateRun<'a> {
    /// Whose attempt it is.
    pub identity: &'a TaskKey,
    /// Its number, above all that were known when it was decided upon.
    pub attempt: u32,
    /// What it is to do.
    pub draft: &'a TaskDraft,
    /// What was asked for.
    pub request: &'a Request,
}

/// What came of making a run.
#[derive(Clone, Debug)]
pub enum CreateOutcome {
    /// It is there, and starts.
    Created(Box<StoredRun>),
    /// Somebody else has that number by now: decide again.
    AttemptTaken,
}

/// A piece of what the supervisor keeps of a run in the workspace. It was redacted when it was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Artifact {
    /// What the agent's program printed; its end, where it is long.
    Transcript,
    /// What the run's branch changes; its beginning, where it is long.
    Diff,
}

/// How much of a piece is read, in bytes.
const MAX_ARTIFACT_BYTES: u64 = 1024 * 1024;

/// A place where runs run.
///
/// All methods may be called by several programs at once; what must happen
/// once (a number, a run) is the backend's to guard.
#[async_trait]
pub trait Backend: Debug + Send + Sync {
    /// What the place is called in the configuration.
    fn name(&self) -> &'static str;

    /// Where it keeps its runs, for messages.
    fn location(&self) -> String;

    /// The workspace of a service, as people find it: a folder or a volume.
    fn workspace(&self, service: &ServiceName) -> String;

    /// The command by which people look at a run without this program; none if there is none.
    fn native_command(&self, _run: &RunName) -> Option<String> {
        None
    }

    /// All runs, the newest first. What is half made is left out.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn runs(&self) -> Result<Vec<StoredRun>, Error>;

    /// A run; none if there is none, or only a half-made one.
    ///
    /// # Errors
    /// The state cannot be read.
    async fn run(&self, name: &RunName) -> Result<Option<StoredRun>, Error>;

    /// Follows a run from its first event on.
    fn follow(&self, run: StoredRun) -> Box<dyn RunFollower>;

    /// Where a run stands now.
    ///
    /// # Errors
    /// What it told cannot be read.
    async fn status(&self, run: StoredRun, now: Timestamp) -> Result<Status, Error> {
        self.follow(run).status(now, &mut |_, _| {}).await
    }

    /// The highest attempt number ever given out to an identity; 0 if there is none.
    ///
    /// # Errors
    /// The mark cannot be read.
    async fn last_attempt(&self, identity: &TaskKey) -> Result<u32, Error>;

    /// Makes a run and starts it. Its number is given out for ever, even if it cannot start.
    ///
    /// # Errors
    /// The run cannot be made or started; no record of it stays.
    async fn create(&self, new: CreateRun<'_>) -> Result<CreateOutcome, Error>;

    /// The name that an attempt would have now.
    async fn run_name(&self, identity: &TaskKey, attempt: u32) -> RunName;

    /// What the place itself needs so that runs can run there. Changes nothing.
    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }

    /// A piece of what the workspace keeps of a run; none if there is none (yet).
    ///
    /// # Errors
    /// It cannot be read.
    async fn artifact(&self, run: &StoredRun, piece: Artifact) -> Result<Option<Excerpt>, Error>;

    /// The command that starts a run, for people. Writes nothing.
    ///
    /// # Errors
    /// Something that it needs is missing.
    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Error>;

    /// Asks a run to stop; asking again does no harm.
    ///
    /// # Errors
    /// It cannot be asked.
    async fn request_stop(&self, run: &StoredRun, manner: StopMode) -> Result<(), Error>;

    /// Removes what interrupted removals have left.
    ///
    /// # Errors
    /// It cannot be removed.
    async fn sweep(&self) -> Result<(), Error>;

    /// The bytes that the record of a run takes, its log and transcript in the workspace too.
    async fn size(&self, run: &StoredRun) -> u64;

    /// Removes the record of a run that has ended, its log and transcript in the workspace too;
    /// false if it is alive after all.
    ///
    /// # Errors
    /// It cannot be removed.
    async fn remove(&self, run: &StoredRun) -> Result<bool, Error>;
}

/// What sees each new event of a run, with its line.
pub type OnEvent<'a> = dyn FnMut(&Event, &str) + Send + 'a;

/// A reader of one run that remembers how far it is.
#[async_trait]
pub trait RunFollower: Send {
    /// Reads what is new, shows each new event with its line, and says where the run stands.
    ///
    /// # Errors
    /// What it told cannot be read.
    async fn status(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error>;
}
