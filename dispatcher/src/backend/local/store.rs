//! The records of runs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, TaskKey, TaskSpec};
use serde::{Deserialize, Serialize};

use super::{Local, lock};
use crate::backend::{StoredRun, SubmissionRecord};
use crate::error::Error;
use crate::files;
use crate::task::stop_mode::StopMode;

#[derive(Debug, Deserialize, Serialize)]
struct LostRecord {
    found_at: Timestamp,
}

/// A run and where it is kept.
#[derive(Clone, Debug)]
pub(super) struct RunEntry {
    pub(super) folder: PathBuf,
    /// What was asked for.
    pub(super) record: SubmissionRecord,
    /// What the supervisor was asked to do.
    pub(super) task: TaskSpec,
}

impl From<RunEntry> for StoredRun {
    fn from(RunEntry { folder: _, record, task }: RunEntry) -> Self {
        Self { record, task }
    }
}

/// What the name of a record that is being removed begins with; no run is named so.
const REMOVED_PREFIX: &str = ".removed-";

/// A run that is about to start: its lock is held.
#[derive(Debug)]
pub(super) struct LockedRun {
    /// The run.
    pub(super) run: RunEntry,
    pub(super) lock: File,
}

impl Local {
    fn runs_folder(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Where a run is kept.
    pub(super) fn stored(&self, StoredRun { record, task }: StoredRun) -> RunEntry {
        RunEntry { folder: self.run_folder(&task.run), record, task }
    }

    /// The folder of a run.
    #[must_use]
    pub fn run_folder(&self, run: &RunName) -> PathBuf {
        self.runs_folder().join(run.as_str())
    }

    /// All runs, the newest first. What is no run, or half made, is left out.
    pub(super) fn stored_runs(&self) -> Result<Vec<RunEntry>, Error> {
        let names = files::list_names(&self.runs_folder())?;
        let mut runs: Vec<RunEntry> = names
            .into_iter()
            .filter_map(|name| self.stored_run(&RunName::new(name).ok()?).ok().flatten())
            .collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    /// A run; none if there is none, or only a half-made one.
    pub(super) fn stored_run(&self, name: &RunName) -> Result<Option<RunEntry>, Error> {
        let folder = self.run_folder(name);
        let Some(record) = files::read(&folder.join("record.json"))? else { return Ok(None) };
        let Some(task) = files::read(&folder.join("task.json"))? else { return Ok(None) };
        let unreadable = |error: String| {
            Error::new(Reason::IoError, format!("the record of run {name} is damaged: {error}"))
                .with_hint(format!("Look into {}.", folder.display()))
        };
        let record: SubmissionRecord =
            serde_json::from_str(&record).map_err(|error| unreadable(error.to_string()))?;
        let task = TaskSpec::from_json(&task)
            .map_err(|faults| unreadable(Error::from_field_errors(&faults).to_string()))?;
        if task.run != *name {
            return Err(unreadable(format!("its task belongs to {}", task.run)));
        }
        Ok(Some(RunEntry { folder, record, task }))
    }

    /// Removes what an interrupted removal has left.
    pub(super) fn sweep_records(&self) -> Result<(), Error> {
        let Ok(entries) = fs::read_dir(self.runs_folder()) else { return Ok(()) };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED_PREFIX) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(|error| files::problem("remove", &path, &error))?;
            }
        }
        Ok(())
    }

    /// Makes the record of a run. The run exists from then on, and counts as
    /// alive as long as what is returned, or a child that got its lock, lives.
    pub(super) fn prepare(
        &self,
        identity: &TaskKey,
        attempt: u32,
        record: SubmissionRecord,
        task: impl Fn(RunName) -> TaskSpec,
    ) -> Result<LockedRun, Error> {
        files::make_folder(&self.runs_folder())?;
        let folder = |name: &RunName| -> Result<bool, Error> {
            let folder = self.run_folder(name);
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(files::problem("make folder", &folder, &error)),
            }
        };
        // Making the folder is what takes the name: two services may want the same one.
        let mut name = identity.run_name(attempt, |_| false);
        if !folder(&name)? {
            name = identity.run_name(attempt, |_| true);
            if !folder(&name)? {
                return Err(Error::new(Reason::InternalError, format!("run {name} exists already")));
            }
        }
        let task = task(name);
        let run = RunEntry { folder: self.run_folder(&task.run), record, task };
        run.write().inspect_err(|_| run.discard())
    }
}

impl RunEntry {
    fn write(&self) -> Result<LockedRun, Error> {
        let path = self.folder.join("lock");
        let lock = lock::open(&path)?;
        if !lock::try_take(&lock, &path)? {
            return Err(Error::new(Reason::InternalError, format!("{} is locked already", path.display())));
        }
        let json = |value: serde_json::Result<String>| {
            value
                .map_err(|error| Error::new(Reason::InternalError, format!("cannot write a record: {error}")))
        };
        files::write(&self.folder.join("task.json"), &json(serde_json::to_string_pretty(&self.task))?)?;
        drop(self.append("events.jsonl")?);
        drop(self.append("stderr.log")?);
        files::write(&self.folder.join("record.json"), &json(serde_json::to_string_pretty(&self.record))?)?;
        let parent = self.folder.parent().unwrap_or(Path::new("/"));
        files::sync_folder(parent).map_err(|error| files::problem("sync folder", parent, &error))?;
        Ok(LockedRun { run: self.clone(), lock })
    }

    /// Opens a file of the run for appending.
    pub(super) fn append(&self, name: &str) -> Result<File, Error> {
        let path = self.folder.join(name);
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| files::problem("open", &path, &error))
    }

    /// Takes back a run that could not be started.
    pub(super) fn discard(&self) {
        // What stays behind has no record, or an unlocked one: it counts as lost, never as alive.
        drop(fs::remove_dir_all(&self.folder));
    }

    /// Removes the record of a run that has ended; false if it is alive after all.
    pub(super) fn remove(&self) -> Result<bool, Error> {
        let path = self.folder.join("lock");
        let lock = lock::open(&path)?;
        if !lock::try_take(&lock, &path)? {
            return Ok(false);
        }
        let failed = |error: std::io::Error| files::problem("remove", &self.folder, &error);
        // Renamed first: a half-removed folder is no run.
        let trash = self.folder.with_file_name(format!("{REMOVED_PREFIX}{}", self.task.run));
        drop(fs::remove_dir_all(&trash));
        fs::rename(&self.folder, &trash).map_err(failed)?;
        fs::remove_dir_all(&trash).map_err(failed)?;
        Ok(true)
    }

    /// Asks the supervisor to stop; asking again does no harm.
    pub(super) fn ask_to_stop(&self, manner: StopMode) -> Result<(), Error> {
        let now = manner == StopMode::Now;
        let path = self.folder.join("stop");
        let asked = files::read(&path)?;
        // Who asked for "now" is not taken back by who asks again.
        if asked.is_some() && (!now || asked.as_deref() == Some("now")) {
            return Ok(());
        }
        files::write(&path, if now { "now" } else { "" })
    }

    /// Whether the supervisor lives.
    pub(super) fn look(&self) -> Result<crate::task::event_fold::LockState, Error> {
        lock::probe(&self.folder.join("lock"))
    }

    /// When the run was found lost; the first to find out says so.
    pub(super) fn lost_at(&self, now: Timestamp) -> Timestamp {
        let path = self.folder.join("lost.json");
        let found = files::read(&path).ok().flatten();
        if let Some(lost) = found.and_then(|text| serde_json::from_str::<LostRecord>(&text).ok()) {
            return lost.found_at;
        }
        // A reader without the right to write still gets its answer.
        if let Ok(text) = serde_json::to_string(&LostRecord { found_at: now }) {
            drop(files::write(&path, &text));
        }
        now
    }

    /// The last thing the supervisor said on stderr.
    pub(super) fn last_stderr_line(&self) -> Option<String> {
        let text = files::read(&self.folder.join("stderr.log")).ok()??;
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().take(300).collect())
    }
}
