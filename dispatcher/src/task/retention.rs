//! Which records of runs are not needed any more.

use orchestrator_contract::RunName;
use orchestrator_contract::outcome::Place;

use super::status::Status;

/// Runs of a service that are kept if nobody says otherwise.
pub const KEEP: usize = 20;

/// The runs whose records can go, from all runs, the newest first.
///
/// The newest `keep` of each service stay. So does whatever is at work, whatever
/// has work that only the workspace has, and a lost run that nobody followed up.
#[must_use]
pub fn plan_removal(newest_first: &[Status], keep: usize) -> Vec<RunName> {
    let mut removable = Vec::new();
    for (index, status) in newest_first.iter().enumerate() {
        let newer = &newest_first[..index];
        let of_service = newer.iter().filter(|other| other.service == status.service).count();
        let followed_up = newer.iter().any(|other| {
            let one = (&other.service, &other.agent, other.kind, other.task_id);
            one == (&status.service, &status.agent, status.kind, status.task_id) && other.outcome.is_some()
        });
        let kept_for_its_work = match &status.work {
            Some(work) => work.place == Place::Workspace,
            None => !followed_up,
        };
        if of_service >= keep && status.phase.is_final() && !kept_for_its_work {
            removable.push(status.run.clone());
        }
    }
    removable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::observe::Lock;
    use crate::task::status::tests::sample;

    fn run(name: &str, lines: usize, lock: Lock, place: Option<Place>) -> Status {
        let mut status = sample(lines, lock);
        status.run = RunName::new(name).unwrap();
        if let (Some(work), Some(place)) = (&mut status.work, place) {
            work.place = place;
        }
        status
    }

    #[test]
    fn neither_work_nor_live_runs_nor_the_newest_are_removed() {
        let mut other = run("other", 5, Lock::Free, None);
        other.service = orchestrator_contract::ServiceName::new("auth").unwrap();
        let runs = [
            run("newest", 5, Lock::Free, None),
            other,
            run("live", 3, Lock::Held, None),
            run("unpushed", 5, Lock::Free, Some(Place::Workspace)),
            run("lost", 3, Lock::Free, None),
            run("old", 5, Lock::Free, None),
        ];
        let names = |keep| plan_removal(&runs, keep).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(1), ["lost", "old"]);
        assert_eq!(names(5), Vec::<String>::new());
        let lost = [run("lost", 3, Lock::Free, None)];
        assert_eq!(plan_removal(&lost, 0), []);
    }
}
