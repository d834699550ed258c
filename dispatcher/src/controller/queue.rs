//! Whose turn it is: one run at a time for each service, and so many in all.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::crd::TaskRun;

/// A run, as far as turns are concerned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueEntry {
    /// When it was submitted.
    pub since: Timestamp,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// What it does.
    pub stage: QueueState,
}

/// What a run does, as far as turns are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueState {
    /// It waits.
    Waiting,
    /// It has a Job.
    Active,
    /// It needs no turn any more.
    Finished,
}

/// Whether a run may begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It may.
    Admitted,
    /// Others come first.
    Queued {
        /// 1 is next.
        position: i32,
        /// Whom it waits for: a run, or a free place.
        waiting_for: String,
    },
}

impl Admission {
    /// What is told to a run that is not among those that wait (any more): whoever asks will see why.
    #[must_use]
    pub fn unknown() -> Self {
        Self::Queued { position: 1, waiting_for: "the list of runs".to_owned() }
    }
}

impl QueueEntry {
    /// The entry of a run.
    #[must_use]
    pub fn of(run: &TaskRun) -> Self {
        let status = run.status.as_ref();
        let has_job = status.is_some_and(|status| status.job_name.is_some());
        let stage = if run.phase().is_final() {
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
            stage,
        }
    }
}

/// Tells for each run that waits whether it may begin, given all runs of the namespace, in any order. All that
/// are told so may begin together.
#[must_use]
pub fn admissions(all: &[QueueEntry], at_once: u32) -> HashMap<String, Admission> {
    let mut told = HashMap::new();
    let mut busy: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting: Vec<&QueueEntry> = Vec::new();
    let mut at_work: u32 = 0;
    for entry in all {
        match entry.stage {
            QueueState::Active => {
                at_work += 1;
                busy.insert(&entry.service, &entry.name);
            }
            QueueState::Waiting => waiting.push(entry),
            QueueState::Finished => {}
        }
    }
    waiting.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
    let mut behind: BTreeMap<&str, i32> = BTreeMap::new();
    let mut without_place = 0;
    for entry in waiting {
        let ahead = behind.entry(&entry.service).or_default();
        if let Some(holder) = busy.get(entry.service.as_str()) {
            *ahead += 1;
            let waits = Admission::Queued { position: *ahead, waiting_for: (*holder).to_owned() };
            told.insert(entry.name.clone(), waits);
            continue;
        }
        // Whoever is next in a service stands in the way of the others of it.
        busy.insert(&entry.service, &entry.name);
        if at_work < at_once {
            at_work += 1;
            told.insert(entry.name.clone(), Admission::Admitted);
            continue;
        }
        without_place += 1;
        let waiting_for = format!("a free place: {at_once} runs are at work, and no more may be");
        told.insert(entry.name.clone(), Admission::Queued { position: without_place, waiting_for });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turn(name: &str, all: &[QueueEntry], at_once: u32) -> Admission {
        admissions(all, at_once).remove(name).unwrap_or_else(Admission::unknown)
    }

    fn entry(second: i64, name: &str, service: &str, stage: QueueState) -> QueueEntry {
        let since = Timestamp::from_second(second).unwrap();
        QueueEntry { since, name: name.to_owned(), service: service.to_owned(), stage }
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
        let waits = |place, whom: &str| Admission::Queued { position: place, waiting_for: whom.to_owned() };
        assert_eq!(turn("b", &all, 9), waits(1, "a"));
        assert_eq!(turn("c", &all, 9), waits(2, "a"));
        assert_eq!(turn("d", &all, 9), Admission::Admitted);
        assert!(
            matches!(turn("d", &all, 1), Admission::Queued { position: 1, waiting_for } if waiting_for.contains("1 runs"))
        );
    }

    proptest! {
        /// However often turns are given, and though all that are told so begin together, no service has two runs
        /// and no place is given twice; and as long as somebody could begin, somebody may.
        #[test]
        fn admissions_never_conflict_or_stall(
            runs in proptest::collection::vec((0i64..5, 0usize..3, 0usize..3), 1..12),
            at_once in 1u32..4,
        ) {
            let mut all: Vec<QueueEntry> = runs.iter().enumerate().map(|(at, (second, service, stage))| {
                // What works already keeps the rules.
                let stage = if *stage == 2 { QueueState::Finished } else { QueueState::Waiting };
                entry(*second, &format!("r{at}"), &format!("s{service}"), stage)
            }).collect();
            loop {
                let waits = all.iter().filter(|e| e.stage == QueueState::Waiting).count();
                let told = admissions(&all, at_once);
                prop_assert_eq!(told.len(), waits, "everybody who waits is told something");
                let begin: Vec<&String> =
                    told.iter().filter(|(_, turn)| **turn == Admission::Admitted).map(|(name, _)| name).collect();
                let works: Vec<&QueueEntry> = all.iter().filter(|e| e.stage == QueueState::Active).collect();
                prop_assert!(works.len() <= at_once as usize);
                let mut services: Vec<&str> = works.iter().map(|e| e.service.as_str()).collect();
                services.sort_unstable();
                let count = services.len();
                services.dedup();
                prop_assert_eq!(count, services.len());
                if !begin.is_empty() {
                    all.iter_mut().filter(|e| begin.contains(&&e.name)).for_each(|e| e.stage = QueueState::Active);
                } else if waits == 0 && works.is_empty() {
                    break;
                } else {
                    prop_assert!(!works.is_empty(), "nobody works and nobody may begin");
                    let done = works[0].name.clone();
                    all.iter_mut().find(|e| e.name == done).unwrap().stage = QueueState::Finished;
                }
            }
        }
    }
}
