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
fn entry_of_another_number_gets_no_documents() {
    let plan_tasks = |ids: serde_json::Value| {
        let entries: Vec<_> = ids
            .as_array()
            .unwrap()
            .iter()
            .map(|id| serde_json::json!({"id": id, "title": id.to_string()}))
            .collect();
        let text = serde_json::json!({"tasks": entries}).to_string();
        let plan = plan_of(&[(".taskmaster/tasks/tasks.json", &text)], None, false, &[]).unwrap();
        let subjects: Vec<_> =
            plan.subjects.iter().map(|task| (task.task.get(), task.entry.id.clone())).collect();
        (subjects, plan.notes)
    };
    let (subjects, notes) = plan_tasks(serde_json::json!(["HAM-2", 2, -1]));
    assert_eq!(subjects, [(2, "2".to_owned())]);
    assert_eq!(
        notes,
        [
            "task `HAM-2` was skipped: task `2` of `.taskmaster/tasks/tasks.json` has that number too",
            "task `-1` was skipped: its id is not a number",
        ]
    );
    let (subjects, notes) = plan_tasks(serde_json::json!(["A-2", "B-2", 3]));
    assert_eq!(subjects, [(3, "3".to_owned())]);
    assert_eq!(notes.len(), 2);
    assert!(notes[0].ends_with("has several tasks with the number 2"), "{notes:?}");
    let names: Vec<String> = (0..100).map(|number| format!("n{number}-{}", "x".repeat(1000))).collect();
    let (_, notes) = plan_tasks(names.into_iter().chain(["1".to_owned()]).collect());
    assert_eq!(
        (notes.len(), notes[5].as_str()),
        (6, "95 more entries of `.taskmaster/tasks/tasks.json` were skipped")
    );
    assert!(notes.iter().all(|note| note.len() < 300), "{notes:?}");
}

#[test]
fn large_related_tasks_are_shortened() {
    let others = (2..500).map(|id| serde_json::json!({"id": id, "title": "x", "dependencies": ["1.1", 1]}));
    let first = serde_json::json!({
        "id": 1, "title": "t".repeat(1000), "description": "d".repeat(10_000), "dependencies": vec![2; 300],
        "subtasks": [{"id": 1, "title": "part"}],
    });
    let text =
        serde_json::json!({"tasks": std::iter::once(first).chain(others).collect::<Vec<_>>()}).to_string();
    let large = "e".repeat(100_000);
    let files = [
        (".taskmaster/tasks/tasks.json", text.as_str()),
        (".taskmaster/docs/task-1/task.md", large.as_str()),
    ];
    let plan = plan_of(&files, None, false, &[]).unwrap();
    let (first, second) = (&plan.subjects[0], &plan.subjects[1]);
    assert_eq!((first.dependencies.len(), first.dependents.len()), (200, 200));
    assert!(first.existing[0].1.len() < 70_000);
    let titles: Vec<_> =
        second.dependencies.iter().map(|task| task.title.as_deref().unwrap().len()).collect();
    assert_eq!(titles, [4, 300]);
    assert!(second.dependencies[1].description.as_ref().unwrap().len() < 700);
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
