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
use orchestrator_contract::{Identity, RunName, ServiceName, TaskSpec};

use self::follow::Follower;
use self::launch::Launch;
use super::{Backend, Creation, Follow, Manner, NewRun, PIECE_MAX, Piece, Record, Run};
use crate::config::Config;
use crate::files::{self, Excerpt};
use crate::problem::Problem;
use crate::task::status::Status;

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

    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn workspace(&self, service: &ServiceName) -> String {
        self.layout(service).root().display().to_string()
    }

    async fn runs(&self) -> Result<Vec<Run>, Problem> {
        Ok(self.stored_runs()?.into_iter().map(Run::from).collect())
    }

    async fn run(&self, name: &RunName) -> Result<Option<Run>, Problem> {
        Ok(self.stored_run(name)?.map(Run::from))
    }

    fn follow(&self, run: Run) -> Box<dyn Follow> {
        Box::new(Follower::new(self.clone(), self.stored(run)))
    }

    async fn status(&self, run: Run, now: Timestamp) -> Result<Status, Problem> {
        Follower::new(self.clone(), self.stored(run)).skip_to_the_end()?.status(now, &mut |_, _| {}).await
    }

    async fn mark(&self, identity: &Identity) -> Result<u32, Problem> {
        self.highest_attempt(identity)
    }

    async fn create(&self, new: NewRun<'_>) -> Result<Creation, Problem> {
        let NewRun { identity, attempt, draft, request } = new;
        let preview = draft.named(identity.run_name(attempt, |_| false), attempt);
        let mut launch = Launch::prepare(&self.config, &preview)?;
        launch.add_token_of_gh(&self.config, &preview).await;
        let gate = self.gate(&identity.service).await?;
        if self.highest_attempt(identity)? >= attempt {
            return Ok(Creation::Taken);
        }
        let record = Record {
            version: 1,
            backend: self.name().to_owned(),
            submitted_at: Timestamp::now(),
            request: request.clone(),
        };
        let prepared = self.prepare(identity, attempt, record, |run| draft.named(run, attempt))?;
        // After the record: whoever sees the mark sees the run too, and decides about it.
        gate.give_out(identity, attempt).inspect_err(|_| prepared.run.discard())?;
        let run = Run::from(prepared.run.clone());
        self.start(prepared, &launch)?;
        Ok(Creation::Created(Box::new(run)))
    }

    async fn name_of(&self, identity: &Identity, attempt: u32) -> RunName {
        identity.run_name(attempt, |name| self.run_folder(name).exists())
    }

    async fn piece(&self, run: &Run, piece: Piece) -> Result<Option<Excerpt>, Problem> {
        let record = self.layout(&run.task.service).run(&run.task.run);
        match piece {
            Piece::Transcript => files::read_end(&record.transcript(), PIECE_MAX),
            Piece::Diff => files::read_start(&record.diff(), PIECE_MAX),
        }
    }

    async fn command(&self, task: &TaskSpec) -> Result<Vec<String>, Problem> {
        let launch = Launch::prepare(&self.config, task)?;
        let layout = self.layout(&task.service);
        let arguments = launch.arguments(&self.run_folder(&task.run), layout.root());
        let line = std::iter::once(launch.supervisor.as_os_str()).chain(arguments.iter().map(AsRef::as_ref));
        Ok(line.map(|argument| argument.to_string_lossy().into_owned()).collect())
    }

    async fn ask_to_stop(&self, run: &Run, manner: Manner) -> Result<(), Problem> {
        self.stored(run.clone()).ask_to_stop(manner)
    }

    async fn sweep(&self) -> Result<(), Problem> {
        self.sweep_records()
    }

    async fn size(&self, run: &Run) -> u64 {
        let folders = self.folders_in_workspace(run);
        folders.iter().chain([&self.run_folder(&run.task.run)]).map(|folder| files::size(folder)).sum()
    }

    async fn remove(&self, run: &Run) -> Result<bool, Problem> {
        // Nobody may be starting a retry of the run whose record goes.
        let gate = self.gate(&run.task.service).await?;
        gate.give_out(&run.task.identity(), run.task.attempt)?;
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
    fn folders_in_workspace(&self, run: &Run) -> [PathBuf; 2] {
        let (layout, name) = (self.layout(&run.task.service), &run.task.run);
        [layout.run(name).folder().to_owned(), layout.agent_home(name)]
    }
}
