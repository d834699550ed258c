//! Reads the events of a run.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};

use async_trait::async_trait;
use jiff::Timestamp;
use orchestrator_contract::Outcome;

use super::handle::Local;
use super::store::RunEntry;
use crate::backend::{Backend as _, OnEvent, RunFollower};
use crate::error::Error;
use crate::files;
use crate::task::event_fold::{EventFold, LockState, RunSnapshot};
use crate::task::status::{RunInfo, Status};

/// How much of the end to read first, in bytes. An outcome is a few kilobytes, or some ten kilobytes for
/// docs runs of many tasks.
const TAIL_BYTES: u64 = 256 * 1024;

/// A reader of a run's events that keeps its position.
#[derive(Debug)]
pub(super) struct Follower {
    local: Local,
    run: RunEntry,
    fold: EventFold,
    events: Option<File>,
}

impl Follower {
    /// Creates a reader at the first event.
    pub(super) fn new(local: Local, run: RunEntry) -> Self {
        let fold = EventFold::new(run.task.run.clone());
        Self { local, run, fold, events: None }
    }

    /// Skips to the tail with the outcome, if the run is finished: listing runs must not read all of
    /// their logs.
    pub(super) fn seek_to_tail(mut self) -> Result<Self, Error> {
        if self.run.lock_state()? == LockState::Held {
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
        // The first line is probably incomplete.
        let whole = end.iter().position(|byte| *byte == b'\n').map_or(&[][..], |at| &end[at + 1..]);
        let mut fold = EventFold::new(self.run.task.run.clone());
        fold.feed(whole, |_, _| {});
        if fold.has_outcome() {
            (self.fold, self.events) = (fold, Some(file));
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
        // First the lock, then the events: a process writes all events before it releases the lock.
        let lock = self.run.lock_state()?;
        self.read(each)?;
        if lock == LockState::Free && !self.fold.has_outcome() {
            self.find_outcome();
        }
        Ok(self.fold.observe(lock))
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
                Ok(count) => self.fold.feed(&chunk[..count], &mut *each),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Reads the supervisor's copy of the outcome in the workspace, in case the state's disk was full.
    fn find_outcome(&mut self) {
        let path = self.local.layout(&self.run.task.service).run_dir(&self.run.task.run).outcome();
        let Ok(Some(text)) = files::read(&path) else { return };
        if let Ok(outcome) = serde_json::from_str::<Outcome>(&text) {
            self.fold.set_outcome(outcome);
        }
    }
}
