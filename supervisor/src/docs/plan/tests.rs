use std::collections::BTreeMap;

use super::*;

const TAGGED: &str = include_str!("../../workspace/documents/fixtures/tagged.json");

fn plan_of(
    files: &[(&str, &str)],
    task: Option<u32>,
    force: bool,
    written_before: &[&str],
) -> Result<Plan, DocumentsError> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let reader = Reader {
        read: |path: &str| Ok(files.get(path).map(|text| text.as_bytes().to_vec())),
        list: |folder: &str| {
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let inner = files.keys().filter_map(|path| path.strip_prefix(prefix.as_str()));
            let mut names: Vec<String> =
                inner.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect();
            names.dedup();
            Ok(names)
        },
    };
    let service = ServiceName::new("trader").unwrap();
    plan(
        &reader,
        &PlanInput {
            service: &service,
            task: task.map(|task| TaskId::new(task).unwrap()),
            docs_directory: None,
            force,
            written_before: &|folder| Ok(written_before.contains(&folder)),
        },
    )
}

const STATE: (&str, &str) = (".taskmaster/state.json", r#"{"currentTag": "master"}"#);

#[test]
fn plan_covers_all_tasks_of_tag_with_dependencies() {
    let plan = plan_of(&[STATE, (".taskmaster/tasks/tasks.json", TAGGED)], None, false, &[]).unwrap();
    assert_eq!(plan.tag.as_deref(), Some("master"));
    let ids: Vec<u32> = plan.subjects.iter().map(|subject| subject.task.get()).collect();
    assert_eq!(ids, [1, 2]);
    let second = &plan.subjects[1];
    let needs: Vec<(&str, Option<&str>)> =
        second.dependencies.iter().map(|need| (need.id.as_str(), need.title.as_deref())).collect();
    assert_eq!(needs, [("1", Some("Set up the workspace")), ("1.1", Some("Crate")), ("5", None)]);
    assert_eq!(plan.subjects[0].dependents[0].id, "2");
    assert_eq!(second.missing, Document::ALL);
}

#[test]
fn plan_requests_only_missing_documents() {
    let files = [
        STATE,
        (".taskmaster/tasks/tasks.json", TAGGED),
        (".taskmaster/docs/task-1/task.md", "# Task 1"),
        (".taskmaster/docs/task-1/prompt.md", "Do it."),
        (".taskmaster/docs/task-1/acceptance-criteria.md", "- it is done"),
        (".taskmaster/docs/task-2/task.md", "# Task 2"),
        (".taskmaster/docs/task-2/prompt.md", "   \n"),
    ];
    let plan = plan_of(&files, None, false, &[]).unwrap();
    assert!(plan.subjects[0].missing.is_empty());
    assert_eq!(plan.subjects[1].missing, [Document::Prompt, Document::Criteria]);
    assert_eq!(plan.subjects[1].existing, [(Document::Task, "# Task 2".to_owned())]);
}

#[test]
fn forced_plan_skips_documents_of_earlier_attempt() {
    let files = [
        STATE,
        (".taskmaster/tasks/tasks.json", TAGGED),
        (".taskmaster/docs/task-1/task.md", "# Task 1"),
        (".taskmaster/docs/task-1/prompt.md", "Do it."),
        (".taskmaster/docs/task-1/acceptance-criteria.md", "- it is done"),
    ];
    let plan = plan_of(&files, None, true, &[]).unwrap();
    assert_eq!(plan.subjects[0].missing, Document::ALL);
    assert_eq!(plan.subjects[0].existing.len(), 3);
    let again = plan_of(&files, None, true, &[".taskmaster/docs/task-1"]).unwrap();
    assert!(again.subjects[0].missing.is_empty());
    assert_eq!(again.subjects[1].missing, Document::ALL);
}

#[test]
fn plan_of_one_task_rejects_unknown_id() {
    let files = [STATE, (".taskmaster/tasks/tasks.json", TAGGED)];
    let plan = plan_of(&files, Some(2), false, &[]).unwrap();
    assert_eq!(plan.subjects.len(), 1);
    assert_eq!(plan.overview.len(), 2);
    let error = plan_of(&files, Some(9), false, &[]).unwrap_err().to_string();
    assert!(error.contains("no task 9") && error.contains("1, 2") && error.contains("`billing`"), "{error}");
}

#[test]
fn invalid_or_duplicate_task_ids_are_noted() {
    let tasks =
        r#"{"tasks": [{"id": "setup", "title": "A"}, {"id": 2, "title": "B"}, {"id": "2", "title": "C"}]}"#;
    let plan = plan_of(&[(".taskmaster/tasks/tasks.json", tasks)], None, false, &[]).unwrap();
    assert_eq!(plan.subjects.len(), 1);
    assert_eq!(plan.notes.len(), 2, "{:?}", plan.notes);
}

#[test]
fn plan_without_usable_task_is_an_error() {
    for (tasks, expected) in [
        (r#"{"tasks": [{"id": "setup"}]}"#, "task `setup` was skipped: its id is not a number"),
        (
            r#"{"tasks": [{"title": "x"}]}"#,
            "entry 1 of `.taskmaster/tasks/tasks.json` was skipped: `id` is missing",
        ),
    ] {
        let error = plan_of(&[(".taskmaster/tasks/tasks.json", tasks)], None, false, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot use `.taskmaster/tasks/tasks.json`: it has no task with a number as its id: {expected}"
            )
        );
    }
    let files = [(".taskmaster/tasks/tasks.json", r#"{"tasks": []}"#), (".taskmaster/state.json", "")];
    assert!(plan_of(&files, None, false, &[]).unwrap().subjects.is_empty());
    let prefixed = r#"{"tasks": [{"id": "HAM-2", "title": "A"}, {"id": 2, "title": "B"}]}"#;
    let plan = plan_of(&[(".taskmaster/tasks/tasks.json", prefixed)], Some(2), false, &[]).unwrap();
    assert_eq!(plan.subjects.iter().map(|task| task.entry.title.as_str()).collect::<Vec<_>>(), ["B"]);
}

#[test]
fn missing_tasks_file_error_lists_searched_paths() {
    let error = plan_of(&[(".taskmaster/docs/prd.txt", "x")], None, false, &[]).unwrap_err().to_string();
    assert!(error.contains(".taskmaster/tasks/tasks.json"), "{error}");
    let error = plan_of(&[("web/.taskmaster/tasks.json", "x")], None, false, &[]).unwrap_err().to_string();
    assert!(error.contains("`web`"), "{error}");
}
