use orchestrator_contract::{AgentName, Reason, ServiceName, Step, TaskId, TaskSpec};
use serde_json::json;

use super::*;

const START: &str = "0123456789012345678901234567890123456789";

fn state(status: WorktreeStatus) -> TreeState {
    TreeState {
        run: RunName::new("trader-a-task1-attempt1").unwrap(),
        status,
        branch: "feature/task-1-implementation".to_owned(),
        start: START.to_owned(),
        base: START.to_owned(),
        setup: None,
    }
}

fn read(text: &str) -> RecordedTree {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    std::fs::write(&file, text).unwrap();
    read_tree_state(&file)
}

/// Returns the record of a clean worktree as another program could have changed it.
fn changed(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> RecordedTree {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    write_tree_state(&file, &state(WorktreeStatus::Clean)).unwrap();
    let mut value: Value = read_json(&file).unwrap().unwrap();
    change(value.as_object_mut().unwrap());
    read(&value.to_string())
}

#[test]
fn written_record_is_known() {
    for status in [
        WorktreeStatus::CheckingOut,
        WorktreeStatus::Dirty,
        WorktreeStatus::PartlySaved,
        WorktreeStatus::Clean,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        write_tree_state(&file, &state(status)).unwrap();
        assert_eq!(read_tree_state(&file), RecordedTree::Known(state(status)));
    }
}

#[test]
fn record_changed_in_any_field_is_unknown() {
    for name in ["version", "run", "status", "branch", "start", "base"] {
        let renamed = changed(|object| {
            let value = object.remove(name).unwrap();
            object.insert(format!("{name}s"), value);
        });
        assert!(matches!(renamed, RecordedTree::Unknown { .. }), "{name} renamed: {renamed:?}");
        for garbage in [Value::Null, json!(7), json!([]), json!(""), json!("../..")] {
            let damaged = changed(|object| {
                object.insert(name.to_owned(), garbage.clone());
            });
            assert!(matches!(damaged, RecordedTree::Unknown { .. }), "{name} = {garbage}: {damaged:?}");
        }
    }
    let future = changed(|object| {
        object.insert("version".to_owned(), json!(2));
    });
    assert!(matches!(future, RecordedTree::Unknown { .. }), "{future:?}");
    let added = changed(|object| {
        object.insert("more".to_owned(), json!(true));
    });
    assert!(matches!(added, RecordedTree::Unknown { .. }), "{added:?}");
}

#[test]
fn truncated_record_is_unknown_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    write_tree_state(&file, &state(WorktreeStatus::Clean)).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    for length in 0..text.trim_end().len() {
        let found = read(&text[..length]);
        assert!(matches!(found, RecordedTree::Unknown { .. }), "{length}: {found:?}");
    }
}

#[test]
fn unreadable_record_is_unknown_with_hint() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read_tree_state(folder.path()), RecordedTree::Unknown { .. }), "a directory");
    assert_eq!(read_tree_state(&folder.path().join("none")), RecordedTree::Missing);
    let RecordedTree::Unknown { why, hint } = changed(|object| {
        object.remove("status");
    }) else {
        panic!("known");
    };
    assert!(why.contains("status"), "{why}");
    assert_eq!(hint.run.unwrap().as_str(), "trader-a-task1-attempt1");
    assert_eq!(hint.branch.unwrap().as_str(), "feature/task-1-implementation");
    assert_eq!(hint.start.unwrap().to_string(), START);
}

#[test]
fn attempt_without_session_keeps_earlier_conversation() {
    let earlier = LastAttempt {
        run: "trader-a-task1-attempt1".to_owned(),
        branch: "b".to_owned(),
        session: Some("session".to_owned()),
        refused: true,
        end: "AgentBlocked".to_owned(),
        summary: "What was done.".to_owned(),
    };
    let own = LastAttempt {
        run: "trader-a-task1-attempt2".to_owned(),
        branch: "b".to_owned(),
        end: "McpServerFailed".to_owned(),
        ..LastAttempt::default()
    };
    let expected = LastAttempt { run: own.run.clone(), end: own.end.clone(), ..earlier.clone() };
    assert_eq!(own.continuing(&earlier), expected);
}

#[test]
fn damaged_attempt_record_is_restored_from_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path());
    let key = TaskKey {
        kind: Kind::Implementation,
        service: ServiceName::new("trader").unwrap(),
        agent: AgentName::new("a").unwrap(),
        task: Some(TaskId::new(1).unwrap()),
    };
    let attempt = LastAttempt {
        run: "trader-a-task1-attempt2".to_owned(),
        branch: "b".to_owned(),
        ..LastAttempt::default()
    };
    write_last_attempt(&layout, &key, &attempt).unwrap();
    assert_eq!(read_last_attempt(&layout, &key).unwrap(), Some(attempt));

    let task = json!({
        "version": 1, "run": "trader-a-task1-attempt2", "service": "trader", "agent": "a", "task_id": 1,
        "attempt": 2, "mode": "fresh",
        "target": { "url": "https://github.com/acme/trader" },
        "platform": { "url": "https://github.com/acme/platform" },
    });
    let task = TaskSpec::from_json(&task.to_string()).unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mut outcome = Outcome::new(&task, Reason::AgentBlocked, Step::Agent, "which?".to_owned(), now, now);
    outcome.work.branch = Some("feature/task-1-implementation-2".to_owned());
    outcome.sessions = vec!["s".to_owned()];
    write_json(&layout.run_dir(&task.run).outcome(), &outcome).unwrap();
    for garbage in ["", "{", "[]", "{\"version\": 2, \"run\": \"x\"}"] {
        std::fs::write(path(&layout, &key), garbage).unwrap();
        let restored = read_last_attempt(&layout, &key).unwrap().unwrap();
        assert_eq!(restored.branch, "feature/task-1-implementation-2", "{garbage}");
        assert_eq!(restored.session.as_deref(), Some("s"));
    }
    std::fs::write(layout.run_dir(&task.run).outcome(), "garbage").unwrap();
    assert_eq!(read_last_attempt(&layout, &key).unwrap(), None);
}
