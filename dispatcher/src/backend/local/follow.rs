//! Reads what a run tells, as far as it has told it.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};

use async_trait::async_trait;
use jiff::Timestamp;
use orchestrator_contract::Outcome;

use super::Local;
use super::store::RunEntry;
use crate::backend::{Backend as _, OnEvent, RunFollower};
use crate::error::Error;
use crate::files;
use crate::task::event_fold::{EventFold, LockState, RunSnapshot};
use crate::task::status::{RunInfo, Status};

/// How much of the end is read first, bytes: an outcome is a few kilobytes, in docs runs of many
/// tasks some ten.
const TAIL_BYTES: u64 = 256 * 1024;

/// A reader of a run's events that remembers how far it is.
#[derive(Debug)]
pub(super) struct Follower {
    local: Local,
    run: RunEntry,
    story: EventFold,
    events: Option<File>,
}

impl Follower {
    /// A reader at the beginning of a run.
    pub(super) fn new(local: Local, run: RunEntry) -> Self {
        let story = EventFold::new(run.task.run.clone());
        Self { local, run, story, events: None }
    }

    /// The same, but of a run that has ended only the end is read, where its outcome is: a list of
    /// runs must not cost what all their logs cost.
    pub(super) fn seek_to_tail(mut self) -> Result<Self, Error> {
        if self.run.look()? == LockState::Held {
            return Ok(self);
        }
        let path = self.run.folder.join("events.jsonl");
        let failed = |error: std::io::Error| files::problem("read", &path, &error);
        let Some(mut file) = self.open()? else { return Ok(self) };
        let length = file.metadata().map_err(failed)?.len();
        if length <= TAIL_BYTES {
            return Ok(self);
        }
        file.seek(SeekFrom::Start(length - TAIL_BYTES)).map_err(failed)?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).map_err(failed)?;
        // The first line is most likely no whole one.
        let whole = end.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &end[at + 1..]);
        let mut story = EventFold::new(self.run.task.run.clone());
        story.feed(whole, |_, _| {});
        if story.has_outcome() {
            (self.story, self.events) = (story, Some(file));
        }
        Ok(self)
    }

    fn open(&self) -> Result<Option<File>, Error> {
        let path = self.run.folder.join("events.jsonl");
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(files::problem("read", &path, &error)),
        }
    }
}

#[async_trait]
impl RunFollower for Follower {
    async fn status(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error> {
        let observed = self.observe(each)?;
        let lost = observed.phase.is_final() && observed.outcome.is_none();
        let known = RunInfo {
            task: &self.run.task,
            submitted_at: self.run.record.submitted_at,
            workspace: self.local.workspace(&self.run.task.service),
            lost_at: lost.then(|| self.run.lost_at(now)),
            last_stderr_line: if lost { self.run.last_stderr_line() } else { None },
        };
        Ok(Status::compose(&known, observed, now))
    }
}

impl Follower {
    fn observe(&mut self, each: &mut OnEvent<'_>) -> Result<RunSnapshot, Error> {
        // First the lock, then the events: whoever has let go has written everything before.
        let lock = self.run.look()?;
        self.read(each)?;
        if lock == LockState::Free && !self.story.has_outcome() {
            self.find_outcome();
        }
        Ok(self.story.observe(lock))
    }

    fn read(&mut self, each: &mut OnEvent<'_>) -> Result<(), Error> {
        let path = self.run.folder.join("events.jsonl");
        let failed = |error: std::io::Error| files::problem("read", &path, &error);
        if self.events.is_none() {
            self.events = self.open()?;
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
        let path = self.local.layout(&self.run.task.service).run_dir(&self.run.task.run).outcome();
        let Ok(Some(text)) = files::read(&path) else { return };
        if let Ok(outcome) = serde_json::from_str::<Outcome>(&text) {
            self.story.set_outcome(outcome);
        }
    }
}
