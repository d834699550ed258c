use super::*;
use crate::taskrun::definition::TaskRunSpec;
use crate::taskrun::status::TaskRunStatus;
use orchestrator_contract::TaskSpec;

fn run(name: &str, version: u64) -> Arc<TaskRun> {
    let sample = include_str!("../../../../supervisor/contract/samples/task-v1.json");
    let task = TaskSpec::from_json(sample).unwrap();
    let mut run = TaskRun::new(name, TaskRunSpec::from_task(&task, None, None));
    run.metadata.uid = Some(format!("uid-{name}"));
    run.metadata.resource_version = Some(version.to_string());
    Arc::new(run)
}

#[test]
fn written_run_is_latest_until_watch_catches_up() {
    let memory = Memory::default();
    let mut written = run("a", 7).as_ref().clone();
    written.status = Some(TaskRunStatus { turns: Some(3), ..TaskRunStatus::default() });
    memory.record_written(written);
    assert_eq!(version(&memory.latest(&run("a", 6))), 7);
    assert_eq!(memory.latest(&run("a", 7)).status, None);
    assert_eq!(version(&memory.latest(&run("a", 6))), 6, "it is dropped once the watch has caught up");
}

#[test]
fn admitted_run_blocks_service_until_admission_ends() {
    let memory = Memory::default();
    let runs = [run("a", 1), run("b", 1)];
    let admission = |name: &str| {
        memory.admission(runs.iter().find(|run| run.name() == name).unwrap(), || runs.to_vec(), 9)
    };
    let queued = Admission::Queued { position: 1, waiting_for: "a".to_owned() };
    assert_eq!(admission("a"), Admission::Admitted);
    assert_eq!(admission("b"), queued);
    assert_eq!(admission("a"), Admission::Admitted, "creating the Job may be retried");
    assert_eq!(memory.next_waiting(&runs, 9), ["b"]);
    memory.end_admission("a");
    assert_eq!(memory.next_waiting(&runs, 9), ["a", "b"]);
    assert_eq!(memory.next_waiting(&runs, 1), ["a"]);
}

#[test]
fn failures_count_until_success_or_eviction() {
    let memory = Memory::default();
    assert_eq!((memory.record_failure("a"), memory.record_failure("a")), (1, 2));
    memory.clear_failures("a");
    assert_eq!(memory.record_failure("a"), 1);
    memory.evict(&run("a", 1));
    assert_eq!(memory.record_failure("a"), 1);
}
