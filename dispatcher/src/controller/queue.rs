//! Whose turn it is: one run at a time for each service, and so many in all.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::crd::TaskRun;

/// A run, as far as turns are concerned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// When it was submitted.
    pub since: Timestamp,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// What it does.
    pub stage: Stage,
}

/// What a run does, as far as turns are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// It waits.
    Waits,
    /// It has a Job.
    Works,
    /// It needs no turn any more.
    Done,
}

/// Whether a run may begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Turn {
    /// It may.
    Now,
    /// Others come first.
    Waits {
        /// 1 is next.
        place: i32,
        /// Whom it waits for: a run, or a free place.
        waiting_for: String,
    },
}

impl Turn {
    /// What is told to a run that is not among those that wait (any more): whoever asks will see why.
    #[must_use]
    pub fn unknown() -> Self {
        Self::Waits { place: 1, waiting_for: "the list of runs".to_owned() }
    }
}

impl Entry {
    /// The entry of a run.
    #[must_use]
    pub fn of(run: &TaskRun) -> Self {
        let status = run.status.as_ref();
        let has_job = status.is_some_and(|status| status.job.is_some());
        let stage = if run.phase().is_final() {
            Stage::Done
        } else if has_job {
            Stage::Works
        } else if run.stop_wish().is_some() {
            Stage::Done
        } else {
            Stage::Waits
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
pub fn turns(all: &[Entry], at_once: u32) -> HashMap<String, Turn> {
    let mut told = HashMap::new();
    let mut busy: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting: Vec<&Entry> = Vec::new();
    let mut at_work: u32 = 0;
    for entry in all {
        match entry.stage {
            Stage::Works => {
                at_work += 1;
                busy.insert(&entry.service, &entry.name);
            }
            Stage::Waits => waiting.push(entry),
            Stage::Done => {}
        }
    }
    waiting.sort_by(|a, b| (a.since, &a.name).cmp(&(b.since, &b.name)));
    let mut behind: BTreeMap<&str, i32> = BTreeMap::new();
    let mut without_place = 0;
    for entry in waiting {
        let ahead = behind.entry(&entry.service).or_default();
        if let Some(holder) = busy.get(entry.service.as_str()) {
            *ahead += 1;
            let waits = Turn::Waits { place: *ahead, waiting_for: (*holder).to_owned() };
            told.insert(entry.name.clone(), waits);
            continue;
        }
        // Whoever is next in a service stands in the way of the others of it.
        busy.insert(&entry.service, &entry.name);
        if at_work < at_once {
            at_work += 1;
            told.insert(entry.name.clone(), Turn::Now);
            continue;
        }
        without_place += 1;
        let waiting_for = format!("a free place: {at_once} runs are at work, and no more may be");
        told.insert(entry.name.clone(), Turn::Waits { place: without_place, waiting_for });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turn(name: &str, all: &[Entry], at_once: u32) -> Turn {
        turns(all, at_once).remove(name).unwrap_or_else(Turn::unknown)
    }

    fn entry(second: i64, name: &str, service: &str, stage: Stage) -> Entry {
        let since = Timestamp::from_second(second).unwrap();
        Entry { since, name: name.to_owned(), service: service.to_owned(), stage }
    }

    #[test]
    fn one_at_a_time_in_the_order_of_submission() {
        let all = [
            entry(3, "c", "trader", Stage::Waits),
            entry(1, "a", "trader", Stage::Works),
            entry(2, "b", "trader", Stage::Waits),
            entry(4, "d", "auth", Stage::Waits),
            entry(0, "z", "trader", Stage::Done),
        ];
        let waits = |place, whom: &str| Turn::Waits { place, waiting_for: whom.to_owned() };
        assert_eq!(turn("b", &all, 9), waits(1, "a"));
        assert_eq!(turn("c", &all, 9), waits(2, "a"));
        assert_eq!(turn("d", &all, 9), Turn::Now);
        assert!(
            matches!(turn("d", &all, 1), Turn::Waits { place: 1, waiting_for } if waiting_for.contains("1 runs"))
        );
    }

    proptest! {
        /// However often turns are given, and though all that are told so begin together, no service has two runs
        /// and no place is given twice; and as long as somebody could begin, somebody may.
        #[test]
        fn turns_never_collide_and_never_stall(
            runs in proptest::collection::vec((0i64..5, 0usize..3, 0usize..3), 1..12),
            at_once in 1u32..4,
        ) {
            let mut all: Vec<Entry> = runs.iter().enumerate().map(|(at, (second, service, stage))| {
                // What works already keeps the rules.
                let stage = if *stage == 2 { Stage::Done } else { Stage::Waits };
                entry(*second, &format!("r{at}"), &format!("s{service}"), stage)
            }).collect();
            loop {
                let waits = all.iter().filter(|e| e.stage == Stage::Waits).count();
                let told = turns(&all, at_once);
                prop_assert_eq!(told.len(), waits, "everybody who waits is told something");
                let begin: Vec<&String> =
                    told.iter().filter(|(_, turn)| **turn == Turn::Now).map(|(name, _)| name).collect();
                let works: Vec<&Entry> = all.iter().filter(|e| e.stage == Stage::Works).collect();
                prop_assert!(works.len() <= at_once as usize);
                let mut services: Vec<&str> = works.iter().map(|e| e.service.as_str()).collect();
                services.sort_unstable();
                let count = services.len();
                services.dedup();
                prop_assert_eq!(count, services.len());
                if !begin.is_empty() {
                    all.iter_mut().filter(|e| begin.contains(&&e.name)).for_each(|e| e.stage = Stage::Works);
                } else if waits == 0 && works.is_empty() {
                    break;
                } else {
                    prop_assert!(!works.is_empty(), "nobody works and nobody may begin");
                    let done = works[0].name.clone();
                    all.iter_mut().find(|e| e.name == done).unwrap().stage = Stage::Done;
                }
            }
        }
    }
}
