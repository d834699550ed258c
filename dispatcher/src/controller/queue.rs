//! Decides which queued runs may start: one per service, and a maximum in total. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::taskrun::definition::TaskRun;

/// A run, reduced to what admission depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueEntry {
    /// When the run was submitted.
    pub since: Timestamp,
    pub name: String,
    pub service: String,
    pub state: QueueState,
}

/// State of a run with regard to admission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueState {
    /// The run waits for admission.
    Waiting,
    /// The run was admitted.
    Active,
    /// The run has finished, or will finish without starting.
    Finished,
}

/// Whether a run may start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    /// The run may start.
    Admitted,
    /// Other runs come first.
    Queued {
        /// Position in the queue; 1 is next.
        position: i32,
        /// What the run waits for: another run, or a free slot.
        waiting_for: String,
    },
}

impl Admission {
    /// Placeholder for a run that is not in the queue.
    #[must_use]
    pub fn unknown() -> Self {
        Self::Queued { position: 1, waiting_for: "the list of runs".to_owned() }
    }
}

impl QueueEntry {
    /// Creates the entry of a run.
    #[must_use]
    pub fn from_run(run: &TaskRun) -> Self {
        let status = run.status.as_ref();
        let has_job = status.is_some_and(|status| status.job_name.is_some());
        let state = if run.phase().is_final() {
            QueueState::Finished
        } else if has_job {
            QueueState::Active
        } else if run.requested_stop().is_some() {
            QueueState::Finished
        } else {
            QueueState::Waiting
        };
        Self {
            since: run.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            name: run.name().to_owned(),
            service: run.spec.service.to_string(),
            state,
        }
    }
}

/// Returns the admission of each waiting run, given all runs of the namespace in any order.
///
/// All admitted runs may start concurrently.
#[must_use]
pub fn admissions(all: &[QueueEntry], max_concurrent: u32) -> HashMap<String, Admission> {
    let mut admissions = HashMap::new();
    let mut busy: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting: Vec<&QueueEntry> = Vec::new();
    let mut active: u32 = 0;
    for entry in all {
        match entry.state {
            QueueState::Active => {
                active += 1;
                busy.insert(&entry.service, &entry.name);
            }
            QueueState::Waiting => waiting.push(entry),
            QueueState::Finished => {}
        }
    }
    waiting.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
    let mut queued: BTreeMap<&str, i32> = BTreeMap::new();
    let mut without_slot = 0;
    for entry in waiting {
        let position = queued.entry(&entry.service).or_default();
        if let Some(holder) = busy.get(entry.service.as_str()) {
            *position += 1;
            let admission = Admission::Queued { position: *position, waiting_for: (*holder).to_owned() };
            admissions.insert(entry.name.clone(), admission);
            continue;
        }
        // The next run of a service blocks its later ones.
        busy.insert(&entry.service, &entry.name);
        if active < max_concurrent {
            active += 1;
            admissions.insert(entry.name.clone(), Admission::Admitted);
            continue;
        }
        without_slot += 1;
        let waiting_for = format!("a free slot: {max_concurrent} runs are active, which is the maximum");
        admissions.insert(entry.name.clone(), Admission::Queued { position: without_slot, waiting_for });
    }
    admissions
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admission(name: &str, all: &[QueueEntry], max_concurrent: u32) -> Admission {
        admissions(all, max_concurrent).remove(name).unwrap_or_else(Admission::unknown)
    }

    fn entry(second: i64, name: &str, service: &str, state: QueueState) -> QueueEntry {
        let since = Timestamp::from_second(second).unwrap();
        QueueEntry { since, name: name.to_owned(), service: service.to_owned(), state }
    }

    #[test]
    fn service_admits_one_run_in_submission_order() {
        let all = [
            entry(3, "c", "trader", QueueState::Waiting),
            entry(1, "a", "trader", QueueState::Active),
            entry(2, "b", "trader", QueueState::Waiting),
            entry(4, "d", "auth", QueueState::Waiting),
            entry(0, "z", "trader", QueueState::Finished),
        ];
        let queued =
            |position, waiting_for: &str| Admission::Queued { position, waiting_for: waiting_for.to_owned() };
        assert_eq!(admission("b", &all, 9), queued(1, "a"));
        assert_eq!(admission("c", &all, 9), queued(2, "a"));
        assert_eq!(admission("d", &all, 9), Admission::Admitted);
        assert!(
            matches!(admission("d", &all, 1), Admission::Queued { position: 1, waiting_for } if waiting_for.contains("1 runs"))
        );
    }

    proptest! {
        /// Even if all admitted runs start concurrently, no service has two active runs and the maximum holds;
        /// and a run is admitted whenever one could start.
        #[test]
        fn admissions_never_conflict_or_stall(
            runs in proptest::collection::vec((0i64..5, 0usize..3, 0usize..3), 1..12),
            max_concurrent in 1u32..4,
        ) {
            let mut all: Vec<QueueEntry> = runs.iter().enumerate().map(|(index, (second, service, state))| {
                // Initially no run is active, which keeps the invariants.
                let state = if *state == 2 { QueueState::Finished } else { QueueState::Waiting };
                entry(*second, &format!("r{index}"), &format!("s{service}"), state)
            }).collect();
            loop {
                let waiting = all.iter().filter(|e| e.state == QueueState::Waiting).count();
                let admissions = admissions(&all, max_concurrent);
                prop_assert_eq!(admissions.len(), waiting, "a waiting run has no admission");
                let admitted: Vec<&String> =
                    admissions.iter().filter(|(_, admission)| **admission == Admission::Admitted).map(|(name, _)| name).collect();
                let running: Vec<&QueueEntry> = all.iter().filter(|e| e.state == QueueState::Active).collect();
                prop_assert!(running.len() <= max_concurrent as usize);
                let mut services: Vec<&str> = running.iter().map(|e| e.service.as_str()).collect();
                services.sort_unstable();
                let count = services.len();
                services.dedup();
                prop_assert_eq!(count, services.len());
                if !admitted.is_empty() {
                    all.iter_mut().filter(|e| admitted.contains(&&e.name)).for_each(|e| e.state = QueueState::Active);
                } else if waiting == 0 && running.is_empty() {
                    break;
                } else {
                    prop_assert!(!running.is_empty(), "no run is active and none is admitted");
                    let done = running[0].name.clone();
                    all.iter_mut().find(|e| e.name == done).unwrap().state = QueueState::Finished;
                }
            }
        }
    }
}
