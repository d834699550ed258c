use super::*;
use orchestrator_contract::RepositoryUrl;

const SAMPLE: &str = include_str!("../../../../supervisor/contract/samples/task-v1.json");

fn run(spec: TaskRunSpec, name: &RunName) -> TaskRun {
    TaskRun::new(name.as_str(), spec)
}

#[test]
fn task_spec_survives_crd_round_trip() {
    let mut task = TaskSpec::from_json(SAMPLE).unwrap();
    task.limits.wait_for_quota_minutes = 90.0;
    let back = run(TaskRunSpec::from_task(&task, None, None), &task.run);
    assert_eq!(back.task().unwrap(), task);
    let text = serde_json::to_string(&back).unwrap();
    assert_eq!(serde_json::from_str::<TaskRun>(&text).unwrap().task().unwrap(), task);
}

#[test]
fn minimal_task_run_manifest_gets_defaults() {
    let text = r#"{"apiVersion": "orchestrator.io/v1alpha1", "kind": "TaskRun", "metadata": {"name": "trader-1"},
        "spec": {"service": "trader", "taskId": 1, "attempt": 1,
                 "target": {"url": "git@github.com:myorg/trader.git"},
                 "platform": {"url": "https://github.com/myorg/platform"}}}"#;
    let task = serde_json::from_str::<TaskRun>(text).unwrap().task().unwrap();
    assert_eq!((task.agent.as_str(), task.model.as_str()), ("claude-agent-1", "sonnet"));
    assert_eq!(task.limits, task::Limits::default());
}

#[test]
fn local_path_repository_is_rejected_for_pods() {
    let mut task = TaskSpec::from_json(SAMPLE).unwrap();
    task.platform.url = RepositoryUrl::new("/srv/platform").unwrap();
    let errors = run(TaskRunSpec::from_task(&task, None, None), &task.run).task().unwrap_err();
    assert_eq!(errors[0].field, "platform.url");
}
