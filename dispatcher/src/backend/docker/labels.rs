//! What a container says of its run: labels, from which everything is told again after a restart.
//!
//! Anybody who may ask the engine can read them: there is no secret in them.

use std::collections::{BTreeMap, HashMap};

use orchestrator_contract::{Reason, RunName, ServiceName, TaskSpec};

use crate::backend::{StoredRun, SubmissionRecord};
use crate::error::Error;

/// On everything of ours: containers and volumes.
pub(super) const SERVICE: &str = "orchestrator.io/service";
/// On containers and volumes of one run.
pub(super) const RUN: &str = "orchestrator.io/run";
/// On containers that only tidy up.
pub(super) const HELPER: &str = "orchestrator.io/helper";
/// On volumes and containers of runs by hand.
pub(super) const DEBUG: &str = "orchestrator.io/debug";
/// On the volumes of services.
pub(super) const WORKSPACE: &str = "orchestrator.io/workspace";
const KIND: &str = "orchestrator.io/kind";
const AGENT: &str = "orchestrator.io/agent";
const TASK: &str = "orchestrator.io/task";
const ATTEMPT: &str = "orchestrator.io/attempt";
const SPECIFICATION: &str = "orchestrator.io/task-spec";
const RECORD: &str = "orchestrator.io/record";

/// The longest text in a label: engines and those who list containers read all of them at once.
const LABEL_MAX: usize = 64 * 1024;

/// The labels of a run's container.
///
/// # Errors
/// The task is too long for a label, for its guidance.
pub(super) fn run_labels(run: &StoredRun) -> Result<BTreeMap<String, String>, Error> {
    let StoredRun { record, task } = run;
    let mut record = record.clone();
    // Guidance can be long: it is in the task.
    if record.request.overrides.guidance == task.guidance {
        record.request.overrides.guidance = None;
    }
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| Error::new(Reason::InternalError, format!("cannot write a label: {error}")))
    };
    let specification = json(serde_json::to_string(task))?;
    let record = json(serde_json::to_string(&record))?;
    if specification.len().max(record.len()) > LABEL_MAX {
        return Err(Error::invalid_request(format!(
            "the task takes {} KiB and a container's label holds {} KiB: its guidance is too long",
            specification.len().max(record.len()) / 1024,
            LABEL_MAX / 1024
        ))
        .with_hint("Put the long part into a file of the repository and name that file in the guidance."));
    }
    let mut labels = BTreeMap::from([
        (RUN.to_owned(), task.run.to_string()),
        (SERVICE.to_owned(), task.service.to_string()),
        (KIND.to_owned(), task.kind.to_string()),
        (AGENT.to_owned(), task.agent.to_string()),
        (ATTEMPT.to_owned(), task.attempt.to_string()),
        (SPECIFICATION.to_owned(), specification),
        (RECORD.to_owned(), record),
    ]);
    labels.extend(task.task_id.map(|task| (TASK.to_owned(), task.to_string())));
    Ok(labels)
}

/// The labels of a service's volume.
pub(super) fn workspace_labels(service: &ServiceName) -> HashMap<String, String> {
    HashMap::from([(SERVICE.to_owned(), service.to_string()), (WORKSPACE.to_owned(), "true".to_owned())])
}

/// The labels of the volume that holds what one run is given.
pub(super) fn input_volume_labels(task: &TaskSpec) -> HashMap<String, String> {
    HashMap::from([(SERVICE.to_owned(), task.service.to_string()), (RUN.to_owned(), task.run.to_string())])
}

/// The run that a container's labels tell of; none if it is no run of ours.
///
/// # Errors
/// It is one, but its labels cannot be understood.
pub(super) fn parse_run(labels: &HashMap<String, String>) -> Result<Option<StoredRun>, Error> {
    let Some(name) = labels.get(RUN) else { return Ok(None) };
    let (Some(specification), Some(record)) = (labels.get(SPECIFICATION), labels.get(RECORD)) else {
        return Ok(None);
    };
    let unreadable = |error: String| {
        Error::new(Reason::IoError, format!("the labels of container {name} are damaged: {error}"))
            .with_hint(format!("Look at it: docker inspect {name}"))
    };
    let mut record: SubmissionRecord =
        serde_json::from_str(record).map_err(|error| unreadable(error.to_string()))?;
    let task = TaskSpec::from_json(specification)
        .map_err(|faults| unreadable(Error::from_field_errors(&faults).to_string()))?;
    if RunName::new(name.as_str()).as_ref() != Ok(&task.run) {
        return Err(unreadable(format!("its task belongs to {}", task.run)));
    }
    let wishes = &mut record.request.overrides;
    wishes.guidance = wishes.guidance.take().or_else(|| task.guidance.clone());
    Ok(Some(StoredRun { record, task }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::task::request::{Overrides, Request};

    const SAMPLE: &str = include_str!("../../../../supervisor/contract/samples/task-v1.json");

    pub(in crate::backend::docker) fn sample() -> StoredRun {
        let task = TaskSpec::from_json(SAMPLE).unwrap();
        let request = Request {
            kind: task.kind,
            task: task.task_id,
            service: task.service.clone(),
            agent: task.agent.clone(),
            mode: task.mode,
            overrides: Overrides { guidance: task.guidance.clone(), turns: Some(3), ..Overrides::default() },
        };
        let submitted_at = "2026-11-22T11:59:30Z".parse().unwrap();
        StoredRun {
            record: SubmissionRecord { version: 1, backend: "docker".to_owned(), submitted_at, request },
            task,
        }
    }

    #[test]
    fn run_record_survives_label_round_trip() {
        let mut run = sample();
        for guidance in [None, Some("Use \"reqwest\", not curl.\n\u{1f980}".to_owned())] {
            run.task.guidance.clone_from(&guidance);
            run.record.request.overrides.guidance = guidance;
            let labels = run_labels(&run).unwrap().into_iter().collect();
            let told = parse_run(&labels).unwrap().unwrap();
            assert_eq!(told.task, run.task);
            assert_eq!(told.record.request, run.record.request);
            assert_eq!(told.record.submitted_at, run.record.submitted_at);
        }
    }

    #[test]
    fn unrelated_labels_are_not_parsed_as_run() {
        let labels = HashMap::from([("com.example".to_owned(), "x".to_owned())]);
        assert!(parse_run(&labels).unwrap().is_none());
        assert!(parse_run(&input_volume_labels(&sample().task)).unwrap().is_none());
    }

    #[test]
    fn damaged_labels_error_names_container() {
        let mut labels: HashMap<_, _> = run_labels(&sample()).unwrap().into_iter().collect();
        labels.insert(SPECIFICATION.to_owned(), "{}".to_owned());
        let problem = parse_run(&labels).unwrap_err();
        assert!(problem.to_string().contains(sample().task.run.as_str()), "{problem}");
        let mut labels: HashMap<_, _> = run_labels(&sample()).unwrap().into_iter().collect();
        labels.insert(RUN.to_owned(), "other".to_owned());
        assert!(parse_run(&labels).is_err());
    }

    #[test]
    fn guidance_too_long_for_label_is_rejected() {
        let mut run = sample();
        run.task.guidance = Some("x".repeat(60 * 1024));
        run.record.request.overrides.guidance.clone_from(&run.task.guidance);
        assert!(run_labels(&run).is_ok());
        run.task.guidance = Some("x".repeat(70 * 1024));
        assert_eq!(run_labels(&run).unwrap_err().exit_code(), 64);
    }
}
