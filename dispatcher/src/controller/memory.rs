//! What the controller remembers between reconciliations, behind one lock.
//!
//! A new leader starts with an empty memory: everything in it is a cache of the cluster's state, or
//! covers the time until the watch delivers the controller's own writes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt as _;

use super::queue::{self, Admission, QueueEntry, QueueState};
use crate::taskrun::definition::TaskRun;

/// How long cached admissions stay valid. A finished run clears the cache; new runs are not in it.
const ADMISSION_CACHE_TTL: Duration = Duration::from_secs(5);

/// Shared state of all reconciliations. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// TaskRuns as last written, by UID, until the watch delivers them.
    last_written: HashMap<String, Arc<TaskRun>>,
    /// Names of the runs that were admitted, until their status says so.
    admitted: HashSet<String>,
    /// Cached admissions; recomputing them for every queued run is quadratic.
    admissions: Option<AdmissionCache>,
    /// Consecutive failures by name of the run.
    failures: HashMap<String, u32>,
}

#[derive(Debug)]
struct AdmissionCache {
    computed_at: Instant,
    by_run: HashMap<String, Admission>,
}

/// Returns the resource version as a number, which grows with each write.
fn version(run: &TaskRun) -> u64 {
    run.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl State {
    fn latest(&mut self, run: &Arc<TaskRun>) -> Arc<TaskRun> {
        let uid = run.uid().unwrap_or_default();
        match self.last_written.get(&uid) {
            Some(written) if version(written) > version(run) => Arc::clone(written),
            Some(_) => {
                self.last_written.remove(&uid);
                Arc::clone(run)
            }
            None => Arc::clone(run),
        }
    }

    fn queue_entries(&mut self, runs: &[Arc<TaskRun>]) -> Vec<QueueEntry> {
        let active = runs.iter().filter(|run| !run.phase().is_final());
        let entry = |run: &Arc<TaskRun>| {
            let run = self.latest(run);
            let mut entry = QueueEntry::from_run(&run);
            if entry.state == QueueState::Waiting && self.admitted.contains(run.name()) {
                entry.state = QueueState::Active;
            }
            entry
        };
        active.map(entry).collect()
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newer of the given and the last written version of a run.
    #[must_use]
    pub fn latest(&self, run: &Arc<TaskRun>) -> Arc<TaskRun> {
        self.lock().latest(run)
    }

    /// Records a run as the controller wrote it.
    pub fn record_written(&self, run: TaskRun) {
        self.lock().last_written.insert(run.uid().unwrap_or_default(), Arc::new(run));
    }

    /// Returns whether a run may start; if so, it counts as active until [`Self::end_admission`].
    ///
    /// `runs` returns all runs of the namespace. Checking and recording share the lock, so two runs
    /// cannot be admitted to the same slot.
    pub fn admission(
        &self,
        run: &TaskRun,
        runs: impl FnOnce() -> Vec<Arc<TaskRun>>,
        max_concurrent: u32,
    ) -> Admission {
        let mut state = self.lock();
        let was_admitted = state.admitted.contains(run.name());
        let cached = state
            .admissions
            .as_ref()
            .filter(|cache| !was_admitted && cache.computed_at.elapsed() < ADMISSION_CACHE_TTL)
            .and_then(|cache| cache.by_run.get(run.name()).cloned());
        let admission = cached.unwrap_or_else(|| {
            let mut entries = state.queue_entries(&runs());
            for entry in &mut entries {
                if entry.name == run.name() {
                    // An earlier admission may have failed to create the Job.
                    entry.state = QueueState::Waiting;
                }
            }
            let by_run = queue::admissions(&entries, max_concurrent);
            let admission = by_run.get(run.name()).cloned().unwrap_or_else(Admission::unknown);
            state.admissions = Some(AdmissionCache { computed_at: Instant::now(), by_run });
            admission
        });
        if admission == Admission::Admitted {
            state.admitted.insert(run.name().to_owned());
        }
        admission
    }

    /// Ends the admission of a run, whose own status decides from now on.
    pub fn end_admission(&self, run: &str) {
        self.lock().admitted.remove(run);
    }

    /// Clears cached admissions and returns the names of the first waiting runs, at most `limit`.
    pub fn next_waiting(&self, runs: &[Arc<TaskRun>], limit: usize) -> Vec<String> {
        let mut state = self.lock();
        state.admissions = None;
        let mut waiting = state.queue_entries(runs);
        drop(state);
        waiting.retain(|entry| entry.state == QueueState::Waiting);
        waiting.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
        waiting.into_iter().take(limit).map(|entry| entry.name).collect()
    }

    /// Counts a failed reconciliation and returns the number of consecutive failures.
    pub fn record_failure(&self, run: &str) -> u32 {
        let mut state = self.lock();
        let count = state.failures.entry(run.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Resets the failures of a run after a successful reconciliation.
    pub fn clear_failures(&self, run: &str) {
        self.lock().failures.remove(run);
    }

    /// Removes a run that is being deleted.
    pub fn evict(&self, run: &TaskRun) {
        let mut state = self.lock();
        state.last_written.remove(&run.uid().unwrap_or_default());
        state.failures.remove(run.name());
    }
}

#[cfg(test)]
mod tests;
