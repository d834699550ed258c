use super::*;
use proptest::prelude::*;

fn task_key(service: &str, agent: &str, task: u32) -> TaskKey {
    TaskKey {
        kind: Kind::Implementation,
        service: ServiceName::new(service).unwrap(),
        agent: AgentName::new(agent).unwrap(),
        task: Some(TaskId::new(task).unwrap()),
    }
}

#[test]
fn run_name_joins_service_agent_task_attempt() {
    let name = task_key("trader", "claude-agent-1", 1).run_name(2, |_| false);
    assert_eq!(name.as_str(), "trader-claude-agent-1-task1-attempt2");
}

#[test]
fn docs_run_name_contains_docs() {
    let mut docs = task_key("trader", "claude-agent-1", 5);
    docs.kind = Kind::Docs;
    assert_eq!(docs.run_name(1, |_| false).as_str(), "trader-claude-agent-1-docs-task5-attempt1");
    docs.task = None;
    assert_eq!(docs.run_name(3, |_| false).as_str(), "trader-claude-agent-1-docs-attempt3");
}

#[test]
fn colliding_task_keys_get_different_run_names() {
    let first = task_key("a-b", "c", 1);
    let second = task_key("a", "b-c", 1);
    let plain = first.run_name(1, |_| false);
    assert_eq!(plain, second.run_name(1, |_| false));
    assert_ne!(plain, second.run_name(1, |name| *name == plain));
}

#[test]
fn subtask_id_error_names_parent_task() {
    let error = "5.2".parse::<TaskId>().unwrap_err();
    assert!(error.to_string().contains("submit task 5"), "{error}");
}

#[test]
fn service_name_unsafe_as_path_is_rejected() {
    for bad in ["../x", "", "a/b", "A", "-a", "a-", "a_b", "x\n", &"a".repeat(41)] {
        assert!(ServiceName::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn working_directory_outside_repository_is_rejected() {
    for bad in ["..", "a/../b", "/etc", "", "a//b", "./a", "a/.git/hooks", "a\\b"] {
        assert!(WorkingDirectory::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!(WorkingDirectory::new("a/b/").unwrap().relative(), "a/b");
    assert_eq!(WorkingDirectory::new(".").unwrap().relative(), "");
}

proptest! {
    #[test]
    fn run_name_is_always_valid_label(
        service in "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        agent in "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        task in 1u32..999_999,
        attempt in 1u32..u32::MAX,
        taken: bool,
    ) {
        let name = task_key(&service, &agent, task).run_name(attempt, |_| taken);
        prop_assert!(RunName::new(name.as_str()).is_ok(), "{}", name);
        let suffix = format!("-attempt{attempt}");
        prop_assert!(name.as_str().ends_with(&suffix));
    }
}
