//! Reads what a run tells, as far as it has told it.

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use jiff::Timestamp;
use orchestrator_contract::{Event, Outcome};

use super::{Local, Run};
use crate::files;
use crate::problem::Problem;
use crate::task::observe::{Lock, Observed, Story};
use crate::task::status::{Known, Status};

/// A reader of a run's events that remembers how far it is.
#[derive(Debug)]
pub struct Follower {
    local: Local,
    run: Run,
    story: Story,
    events: Option<File>,
}

impl Local {
    /// Follows a run from its first event on.
    #[must_use]
    pub fn follow(&self, run: Run) -> Follower {
        let story = Story::new(run.task.run.clone());
        Follower { local: self.clone(), run, story, events: None }
    }

    /// The status of a run.
    ///
    /// # Errors
    /// What it told cannot be read.
    pub fn status(&self, run: &Run, now: Timestamp) -> Result<Status, Problem> {
        self.follow(run.clone()).status(now, |_, _| {})
    }
}

impl Follower {
    /// Reads what is new, shows each new event with its line, and says where the run stands.
    ///
    /// # Errors
    /// What it told cannot be read.
    pub fn status(&mut self, now: Timestamp, each: impl FnMut(&Event, &str)) -> Result<Status, Problem> {
        let observed = self.observe(each)?;
        let lost = observed.phase.is_final() && observed.outcome.is_none();
        let known = Known {
            task: &self.run.task,
            submitted_at: self.run.record.submitted_at,
            workspace: self.local.workspace(&self.run.task.service).root().display().to_string(),
            lost_at: lost.then(|| self.run.lost_at(now)),
            complaint: if lost { self.run.complaint() } else { None },
        };
        Ok(Status::compose(&known, observed, now))
    }

    fn observe(&mut self, mut each: impl FnMut(&Event, &str)) -> Result<Observed, Problem> {
        // First the lock, then the events: whoever has let go has written everything before.
        let lock = self.run.look()?;
        self.read(&mut each)?;
        if lock == Lock::Free && !self.story.has_outcome() {
            self.find_outcome();
        }
        Ok(self.story.observe(lock))
    }

    fn read(&mut self, each: &mut impl FnMut(&Event, &str)) -> Result<(), Problem> {
        let path = self.run.folder.join("events.jsonl");
        let failed = |error: std::io::Error| files::problem("read", &path, &error);
        if self.events.is_none() {
            match File::open(&path) {
                Ok(file) => self.events = Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(failed(error)),
            }
        }
        let Some(file) = &mut self.events else { return Ok(()) };
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => self.story.feed(&chunk[..count], &mut *each),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The supervisor keeps its outcome in the workspace too: that one counts
    /// where the disk of the state was full.
    fn find_outcome(&mut self) {
        let path = self.local.workspace(&self.run.task.service).run(&self.run.task.run).outcome();
        let Ok(Some(text)) = files::read(&path) else { return };
        if let Ok(outcome) = serde_json::from_str::<Outcome>(&text) {
            self.story.found(outcome);
        }
    }
}
