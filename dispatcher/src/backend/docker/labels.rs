//! Labels of containers and volumes, from which runs are restored.
//!
//! They are visible in `docker inspect` and hold no secrets.

use std::collections::{BTreeMap, HashMap};

use orchestrator_contract::containers::ContainerRole;
use orchestrator_contract::{Reason, RunName, ServiceName, TaskSpec};

use crate::backend::{StoredRun, SubmissionRecord};
use crate::error::Error;

/// On all containers and volumes of a service.
pub(super) const SERVICE: &str = "orchestrator.io/service";
/// On containers and volumes of one run.
pub(super) const RUN: &str = "orchestrator.io/run";
/// On the containers of a run beside the supervisor's: `agent` or `verify`.
pub(super) const ROLE: &str = "orchestrator.io/role";
/// On the volumes with programs of guests: the id of their image.
pub(super) const TOOLS: &str = "orchestrator.io/tools";
/// On helper containers.
pub(super) const HELPER: &str = "orchestrator.io/helper";
/// On containers and volumes of debug runs.
pub(super) const DEBUG: &str = "orchestrator.io/debug";
/// On the volumes of services.
pub(super) const WORKSPACE: &str = "orchestrator.io/workspace";
const KIND: &str = "orchestrator.io/kind";
const AGENT: &str = "orchestrator.io/agent";
const TASK: &str = "orchestrator.io/task";
const ATTEMPT: &str = "orchestrator.io/attempt";
const SPECIFICATION: &str = "orchestrator.io/task-spec";
const RECORD: &str = "orchestrator.io/record";

/// Maximum bytes of a label: engines and their clients load all labels of a list.
const MAX_LABEL_BYTES: usize = 64 * 1024;

/// Returns the labels of a run's container.
///
/// # Errors
/// Returns an error if the task is too long for a label, because of its guidance.
pub(super) fn run_labels(run: &StoredRun) -> Result<BTreeMap<String, String>, Error> {
    let StoredRun { record, task } = run;
    let mut record = record.clone();
    // Long guidance is stored once, in the task.
    if record.request.overrides.guidance == task.guidance {
        record.request.overrides.guidance = None;
    }
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| Error::new(Reason::InternalError, format!("cannot write a label: {error}")))
    };
    let specification = json(serde_json::to_string(task))?;
    let record = json(serde_json::to_string(&record))?;
    if specification.len().max(record.len()) > MAX_LABEL_BYTES {
        return Err(Error::invalid_request(format!(
            "guidance too long: the task has {} KiB, and a container label holds {} KiB",
            specification.len().max(record.len()) / 1024,
            MAX_LABEL_BYTES / 1024
        ))
        .with_hint("Move the long part to a file in the repository, and refer to it in the guidance."));
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

/// Returns the labels of a service's volume.
pub(super) fn workspace_labels(service: &ServiceName) -> HashMap<String, String> {
    HashMap::from([(SERVICE.to_owned(), service.to_string()), (WORKSPACE.to_owned(), "true".to_owned())])
}

/// Returns the labels of a run's own volumes: inputs, sockets.
pub(super) fn run_volume_labels(task: &TaskSpec) -> HashMap<String, String> {
    HashMap::from([(SERVICE.to_owned(), task.service.to_string()), (RUN.to_owned(), task.run.to_string())])
}

/// Returns the labels of a container of untrusted programs.
pub(super) fn guest_labels(task: &TaskSpec, role: ContainerRole) -> BTreeMap<String, String> {
    BTreeMap::from([
        (SERVICE.to_owned(), task.service.to_string()),
        (RUN.to_owned(), task.run.to_string()),
        (ROLE.to_owned(), role.name().to_owned()),
    ])
}

/// Restores a run from its container's labels; `None` if they are not those of a run.
///
/// # Errors
/// Returns an error if the labels of a run are damaged.
pub(super) fn parse_run(labels: &HashMap<String, String>) -> Result<Option<StoredRun>, Error> {
    let Some(name) = labels.get(RUN) else { return Ok(None) };
    let (Some(specification), Some(record)) = (labels.get(SPECIFICATION), labels.get(RECORD)) else {
        return Ok(None);
    };
    let unreadable = |error: String| {
        Error::new(Reason::IoError, format!("damaged labels of container {name}: {error}"))
            .with_hint(format!("Inspect it with: docker inspect {name}"))
    };
    let mut record: SubmissionRecord =
        serde_json::from_str(record).map_err(|error| unreadable(error.to_string()))?;
    let task = TaskSpec::from_json(specification)
        .map_err(|faults| unreadable(Error::from_field_errors(&faults).to_string()))?;
    if RunName::new(name.as_str()).as_ref() != Ok(&task.run) {
        return Err(unreadable(format!("the task spec belongs to {}", task.run)));
    }
    let overrides = &mut record.request.overrides;
    overrides.guidance = overrides.guidance.take().or_else(|| task.guidance.clone());
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
            let parsed = parse_run(&labels).unwrap().unwrap();
            assert_eq!(parsed.task, run.task);
            assert_eq!(parsed.record.request, run.record.request);
            assert_eq!(parsed.record.submitted_at, run.record.submitted_at);
        }
    }

    #[test]
    fn unrelated_labels_are_not_parsed_as_run() {
        let labels = HashMap::from([("com.example".to_owned(), "x".to_owned())]);
        assert!(parse_run(&labels).unwrap().is_none());
        assert!(parse_run(&run_volume_labels(&sample().task)).unwrap().is_none());
        let guest = guest_labels(&sample().task, ContainerRole::Agent).into_iter().collect();
        assert!(parse_run(&guest).unwrap().is_none());
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
