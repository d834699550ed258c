//! Selects the run records that gc removes.

use orchestrator_contract::RunName;
use orchestrator_contract::outcome::WorkLocation;

use super::status::Status;

/// Default number of runs of a service to keep.
pub const DEFAULT_KEEP_RUNS: usize = 20;

/// Selects the runs to remove from all runs, newest first.
///
/// Keeps the newest `keep` runs of each service, active runs, runs with unpushed work, and lost
/// runs that were not retried.
#[must_use]
pub fn select_expired(newest_first: &[Status], keep: usize) -> Vec<RunName> {
    let mut expired = Vec::new();
    for (index, status) in newest_first.iter().enumerate() {
        let newer = &newest_first[..index];
        let of_service = newer.iter().filter(|other| other.service == status.service).count();
        let was_retried = newer.iter().any(|other| {
            let one = (&other.service, &other.agent, other.kind, other.task_id);
            one == (&status.service, &status.agent, status.kind, status.task_id) && other.outcome.is_some()
        });
        let has_unpushed_work = match &status.work {
            Some(work) => work.location == WorkLocation::Workspace,
            None => !was_retried,
        };
        if of_service >= keep && status.phase.is_final() && !has_unpushed_work {
            expired.push(status.run.clone());
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event_fold::LockState;
    use crate::task::status::tests::sample;

    fn run(name: &str, lines: usize, lock: LockState, location: Option<WorkLocation>) -> Status {
        let mut status = sample(lines, lock);
        status.run = RunName::new(name).unwrap();
        if let (Some(work), Some(location)) = (&mut status.work, location) {
            work.location = location;
        }
        status
    }

    #[test]
    fn retention_keeps_unpushed_active_and_latest_runs() {
        let mut other = run("other", 5, LockState::Free, None);
        other.service = orchestrator_contract::ServiceName::new("auth").unwrap();
        let runs = [
            run("newest", 5, LockState::Free, None),
            other,
            run("live", 3, LockState::Held, None),
            run("unpushed", 5, LockState::Free, Some(WorkLocation::Workspace)),
            run("lost", 3, LockState::Free, None),
            run("old", 5, LockState::Free, None),
        ];
        let names = |keep| select_expired(&runs, keep).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(1), ["lost", "old"]);
        assert_eq!(names(5), Vec::<String>::new());
        let lost = [run("lost", 3, LockState::Free, None)];
        assert_eq!(select_expired(&lost, 0), []);
    }
}
