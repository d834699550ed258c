//! The records of runs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use orchestrator_contract::{Reason, RunName, TaskKey, TaskSpec};
use serde::{Deserialize, Serialize};

use super::handle::Local;
use super::lock;
use crate::backend::{StoredRun, SubmissionRecord};
use crate::error::Error;
use crate::files;
use crate::task::status::DamagedRun;
use crate::task::stop_mode::StopMode;

#[derive(Debug, Deserialize, Serialize)]
struct LostRecord {
    found_at: Timestamp,
}

/// A run and its folder.
#[derive(Clone, Debug)]
pub(super) struct RunEntry {
    pub(super) folder: PathBuf,
    pub(super) record: SubmissionRecord,
    pub(super) task: TaskSpec,
}

impl From<RunEntry> for StoredRun {
    fn from(RunEntry { folder: _, record, task }: RunEntry) -> Self {
        Self { record, task }
    }
}

/// A record without a submission for this long is incomplete: writing one takes milliseconds.
const INCOMPLETE_AFTER: Duration = Duration::from_secs(60);

/// Prefix of records that are being removed; not a valid run name.
const REMOVED_PREFIX: &str = ".removed-";

/// A run that is about to start, with its lock held.
#[derive(Debug)]
pub(super) struct LockedRun {
    pub(super) run: RunEntry,
    pub(super) lock: File,
}

impl Local {
    pub(super) fn runs_folder(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Returns a run with its folder.
    pub(super) fn stored(&self, StoredRun { record, task }: StoredRun) -> RunEntry {
        RunEntry { folder: self.run_folder(&task.run), record, task }
    }

    /// Returns the folder of a run.
    #[must_use]
    pub fn run_folder(&self, run: &RunName) -> PathBuf {
        self.runs_folder().join(run.as_str())
    }

    /// Returns all complete runs, newest first.
    pub(super) fn stored_runs(&self) -> Result<Vec<RunEntry>, Error> {
        let names = files::list_names(&self.runs_folder())?;
        let mut runs: Vec<RunEntry> = names
            .into_iter()
            .filter_map(|name| self.stored_run(&RunName::new(name).ok()?).ok().flatten())
            .collect();
        runs.sort_by(|a, b| (b.record.submitted_at, &b.task.run).cmp(&(a.record.submitted_at, &a.task.run)));
        Ok(runs)
    }

    /// Returns the folders whose record is damaged, or was never completed.
    pub(super) fn damaged_records(&self) -> Result<Vec<DamagedRun>, Error> {
        let names = files::list_names(&self.runs_folder())?;
        Ok(names.into_iter().filter_map(|name| self.damaged_record(name)).collect())
    }

    fn damaged_record(&self, folder: String) -> Option<DamagedRun> {
        let problem = match RunName::new(&*folder).map(|name| self.stored_run(&name)) {
            Ok(Ok(Some(_))) => return None,
            Ok(Ok(None)) => {
                let path = self.runs_folder().join(&folder);
                let created = fs::metadata(&path).ok()?.modified().ok()?;
                // A submission may be writing it right now.
                created.elapsed().ok().filter(|age| *age > INCOMPLETE_AFTER)?;
                format!("incomplete record: {} has no task or no submission", path.display())
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("damaged record: the folder's name is not that of a run: {error}"),
        };
        Some(DamagedRun { run: folder, problem })
    }

    /// Returns a run; `None` if it does not exist or is incomplete.
    pub(super) fn stored_run(&self, name: &RunName) -> Result<Option<RunEntry>, Error> {
        let folder = self.run_folder(name);
        let Some(record) = files::read(&folder.join("record.json"))? else { return Ok(None) };
        let Some(task) = files::read(&folder.join("task.json"))? else { return Ok(None) };
        let unreadable = |error: String| {
            Error::new(Reason::IoError, format!("damaged record of run {name}: {error}"))
                .with_hint(format!("Inspect {}.", folder.display()))
        };
        let record: SubmissionRecord =
            serde_json::from_str(&record).map_err(|error| unreadable(error.to_string()))?;
        let task = TaskSpec::from_json(&task)
            .map_err(|faults| unreadable(Error::from_field_errors(&faults).to_string()))?;
        if task.run != *name {
            return Err(unreadable(format!("the task spec belongs to {}", task.run)));
        }
        Ok(Some(RunEntry { folder, record, task }))
    }

    /// Removes leftovers of interrupted removals.
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

    /// Creates the record of a run. The run counts as alive while the returned lock is open here or in
    /// a child.
    pub(super) fn prepare(
        &self,
        identity: &TaskKey,
        attempt: u32,
        record: SubmissionRecord,
        task: impl Fn(RunName) -> TaskSpec,
    ) -> Result<LockedRun, Error> {
        files::create_folder(&self.runs_folder())?;
        let create_folder = |name: &RunName| -> Result<bool, Error> {
            let folder = self.run_folder(name);
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(files::problem("create folder", &folder, &error)),
            }
        };
        // Creating the folder claims the name: two services may want the same one.
        let mut name = identity.run_name(attempt, |_| false);
        if !create_folder(&name)? {
            name = identity.run_name(attempt, |_| true);
            if !create_folder(&name)? {
                return Err(Error::new(Reason::InternalError, format!("run {name} already exists")));
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
        if !lock::try_acquire(&lock, &path)? {
            return Err(Error::new(Reason::InternalError, format!("{} is already locked", path.display())));
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

    /// Removes a run that could not be started.
    pub(super) fn discard(&self) {
        // Leftovers have no record or an unlocked one, and count as lost.
        drop(fs::remove_dir_all(&self.folder));
    }

    /// Removes the record of a finished run; returns false if it is still alive.
    pub(super) fn remove(&self) -> Result<bool, Error> {
        let path = self.folder.join("lock");
        let lock = lock::open(&path)?;
        if !lock::try_acquire(&lock, &path)? {
            return Ok(false);
        }
        let failed = |error: std::io::Error| files::problem("remove", &self.folder, &error);
        // Rename first, so that a partly removed folder is not a run.
        let trash = self.folder.with_file_name(format!("{REMOVED_PREFIX}{}", self.task.run));
        drop(fs::remove_dir_all(&trash));
        fs::rename(&self.folder, &trash).map_err(failed)?;
        fs::remove_dir_all(&trash).map_err(failed)?;
        Ok(true)
    }

    /// Requests the supervisor to stop; idempotent.
    pub(super) fn request_stop(&self, mode: StopMode) -> Result<(), Error> {
        let now = mode == StopMode::Now;
        let path = self.folder.join("stop");
        let requested = files::read(&path)?;
        // A graceful request does not override an earlier immediate one.
        if requested.is_some() && (!now || requested.as_deref() == Some("now")) {
            return Ok(());
        }
        files::write(&path, if now { "now" } else { "" })
    }

    /// Returns whether the supervisor holds its lock.
    pub(super) fn lock_state(&self) -> Result<crate::task::event_fold::LockState, Error> {
        lock::probe(&self.folder.join("lock"))
    }

    /// Returns when the run was first found lost, and records it.
    pub(super) fn lost_at(&self, now: Timestamp) -> Timestamp {
        let path = self.folder.join("lost.json");
        let found = files::read(&path).ok().flatten();
        if let Some(lost) = found.and_then(|text| serde_json::from_str::<LostRecord>(&text).ok()) {
            return lost.found_at;
        }
        // Recording is best effort: the reader may lack write permission.
        if let Ok(text) = serde_json::to_string(&LostRecord { found_at: now }) {
            drop(files::write(&path, &text));
        }
        now
    }

    /// Returns the last line of the supervisor's stderr.
    pub(super) fn last_stderr_line(&self) -> Option<String> {
        let text = files::read(&self.folder.join("stderr.log")).ok()??;
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().take(300).collect())
    }
}
