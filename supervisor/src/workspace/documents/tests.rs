use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TAGGED: &str = include_str!("fixtures/tagged.json");
const PLAIN: &str = include_str!("fixtures/plain.json");

/// Repository as a map of paths to texts.
#[derive(Clone, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn with(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.0.insert(path.to_owned(), text.as_ref().to_vec());
        self
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut names: Vec<String> = self
            .0
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('/').next().map(str::to_owned))
            .collect();
        names.dedup();
        names
    }

    fn find(&self, service: &str, task: u32) -> Result<TaskDocuments, DocumentsError> {
        self.find_in(service, task, None)
    }

    fn find_in(
        &self,
        service: &str,
        task: u32,
        docs_directory: Option<&str>,
    ) -> Result<TaskDocuments, DocumentsError> {
        let reader = Reader {
            read: |path: &str| Ok(self.0.get(path).cloned()),
            list: |folder: &str| Ok(self.list(folder)),
        };
        let service = &ServiceName::new(service).unwrap();
        find_documents(&reader, &DocumentQuery { service, task: TaskId::new(task).unwrap(), docs_directory })
    }
}

fn one_task(title: &str) -> String {
    format!(r#"{{"tasks":[{{"id":1,"title":"{title}"}}]}}"#)
}

#[test]
fn task_with_documents_matches_snapshot() {
    let files = Files::default()
        .with(".taskmaster/tasks/tasks.json", TAGGED)
        .with(".taskmaster/state.json", r#"{"currentTag":"master","lastSwitched":"2026-05-01T10:00:00.000Z","branchTagMapping":{},"migrationNoticeShown":true}"#)
        .with(".taskmaster/docs/task-2/task.md", "# Task 2: Order book\n")
        .with(".taskmaster/docs/task-2/prompt.md", "Implement it.")
        .with(".taskmaster/docs/task-2/acceptance-criteria.md", "# Acceptance\n\n- [ ] Matches by price\n  and time\n- [x] `cargo test` passes\n\n```\n- code\n```\n")
        .with(".taskmaster/docs/architecture.md", "# A")
        .with(".taskmaster/docs/prd.txt", "P");
    let found = files.find("trader", 2).unwrap();
    insta::assert_debug_snapshot!(found);
}

#[test]
fn missing_documents_fall_back_to_task_entry() {
    let found = Files::default().with(".taskmaster/tasks/tasks.json", PLAIN).find("trader", 1).unwrap();
    assert_eq!(found.source, DocumentSource::TaskEntry);
    assert_eq!((found.tag, found.entry.title.as_str()), (None, "Initialize the crate"));
    assert_eq!(found.acceptance_criteria, ["`cargo test` runs and passes on a clean checkout."]);
    assert_eq!(found.files, [".taskmaster/tasks/tasks.json"]);
}

#[test]
fn documents_suffice_without_tasks_file() {
    let found = Files::default()
        .with(".taskmaster/docs/task-7/task.md", "# Task 7: Ship it\n\ntext")
        .find("trader", 7)
        .unwrap();
    assert_eq!((found.source, found.entry.title.as_str()), (DocumentSource::Files, "Ship it"));
}

#[test]
fn service_directory_is_preferred_to_projects_or_root() {
    let root = Files::default().with(".taskmaster/tasks/tasks.json", one_task("root"));
    let projects = root.clone().with("projects/trader/.taskmaster/tasks/tasks.json", one_task("projects"));
    let own = projects.clone().with("trader/.taskmaster/tasks/tasks.json", one_task("own"));
    let title = |files: &Files| files.find("trader", 1).unwrap().entry.title;
    assert_eq!([title(&root), title(&projects), title(&own)], ["root", "projects", "own"]);
    let given = own.find_in("trader", 1, Some("projects/trader/")).unwrap();
    assert_eq!((given.folder.as_str(), given.entry.title.as_str()), ("projects/trader", "projects"));
    assert_eq!(own.find_in("trader", 1, Some("")).unwrap().entry.title, "root");
}

#[test]
fn documents_not_found_lists_searched_directories() {
    let files =
        Files::default().with("billing/.taskmaster/tasks/tasks.json", one_task("x")).with("README", "");
    let error = files.find("trader", 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no task documents in `trader/.taskmaster/`, `projects/trader/.taskmaster/`, `.taskmaster/`; \
         found in `billing`: set it as the docs directory"
    );
    assert_eq!(error.reason(), orchestrator_contract::Reason::DocumentsNotFound);
}

#[test]
fn task_without_any_source_error_lists_paths() {
    let error = Files::default().with(".taskmaster/config.json", "{}").find("trader", 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no task documents: none of `.taskmaster/tasks/tasks.json`, `.taskmaster/docs/task-3/task.md`, \
         `.taskmaster/docs/task-3/prompt.md`, `.taskmaster/docs/task-3/acceptance-criteria.md` exists"
    );
}

#[test]
fn unknown_task_error_lists_ids_with_other_tags() {
    let files = Files::default().with(".taskmaster/tasks/tasks.json", TAGGED);
    let error = files.find("trader", 9).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`.taskmaster/tasks/tasks.json` has no task 9 in tag `master`; tasks: 1, 2; found in tag `billing`"
    );
    assert_eq!(error.reason(), orchestrator_contract::Reason::TaskNotFound);
}

#[test]
fn service_tag_is_preferred_to_current_tag() {
    let files = Files::default()
        .with(".taskmaster/tasks/tasks.json", TAGGED)
        .with(".taskmaster/state.json", r#"{"currentTag":"master"}"#);
    assert_eq!(files.find("billing", 9).unwrap().tag.as_deref(), Some("billing"));
    assert_eq!(files.find("trader", 1).unwrap().tag.as_deref(), Some("master"));
}

#[test]
fn ambiguous_tags_error_lists_tags() {
    let two = r#"{"a":{"tasks":[]},"b":{"tasks":[]}}"#;
    let files = Files::default().with(".taskmaster/tasks/tasks.json", two);
    let error = files.find("trader", 1).unwrap_err().to_string();
    assert!(error.contains("the tags `a`, `b`"), "{error}");
    let gone = files.with(".taskmaster/state.json", r#"{"currentTag":"c"}"#);
    assert!(gone.find("trader", 1).unwrap_err().to_string().contains("current tag is `c`"));
}

#[test]
fn tasks_file_with_byte_order_mark_is_read() {
    let text = ["\u{feff}".as_bytes(), one_task("marked").as_bytes()].concat();
    let files = Files::default().with(".taskmaster/tasks/tasks.json", text);
    assert_eq!(files.find("trader", 1).unwrap().entry.title, "marked");
}

#[test]
fn unusable_tasks_file_error_has_position_or_field() {
    let cases = [
        ("{\n  \"tasks\": [\n    {\"id\": 1 2}\n  ]\n}", ", line 3, column 14: expected `,` or `}`"),
        ("{\"master\": {\n  \"tasks\": 7}}", ": `master.tasks` is 7, expected a list of tasks"),
        ("{\"tasks\": null}", ": `tasks` is null, expected a list of tasks"),
        ("[]", ": it is a list, expected an object with `tasks` or tags"),
        ("{\"meta\": {}}", ": it has neither `tasks` nor tags that have `tasks`"),
    ];
    for (text, expected) in cases {
        let error =
            Files::default().with(".taskmaster/tasks/tasks.json", text).find("trader", 1).unwrap_err();
        let shown = error.to_string();
        let verb = if expected.starts_with(", line") { "parse" } else { "use" };
        assert_eq!(shown, format!("cannot {verb} `.taskmaster/tasks/tasks.json`{expected}"));
    }
}

/// Files of a repository whose `tasks.json` has this list in its tag `master`.
fn master(tasks: serde_json::Value) -> Files {
    let text = serde_json::json!({"master": {"tasks": tasks}}).to_string();
    Files::default().with(".taskmaster/tasks/tasks.json", text)
}

#[test]
fn odd_entries_of_other_tasks_are_noted() {
    let odd = serde_json::json!([
        {"id": 1, "title": "ok"}, null, {"title": "no id"}, {"id": {}}, {"id": 2, "dependencies": [null]},
        {"id": 3, "subtasks": ["text", {}]}, {"id": 4, "title": null}, {"id": 5, "details": {}}, 7,
    ]);
    let found = master(odd).find("trader", 1).unwrap();
    let file = ".taskmaster/tasks/tasks.json";
    assert_eq!(
        found.notes,
        [
            format!("entry 2 of `{file}` was skipped: it is null, expected an object"),
            format!("entry 3 of `{file}` was skipped: `id` is missing"),
            format!("entry 4 of `{file}` was skipped: `id` is an object, expected a number or a text"),
            format!(
                "task 2 of `{file}` was read without its odd fields: `dependencies[0]` is null, expected a task id"
            ),
            format!(
                "task 3 of `{file}` was read without its odd fields: `subtasks[0]` is a text, expected an object, and 1 more"
            ),
            format!("2 more entries of `{file}` have odd fields"),
        ]
    );
}

#[test]
fn odd_fields_of_requested_task_are_named() {
    for (field, value, expected) in [
        ("dependencies", serde_json::json!([1, null]), "`dependencies[1]` is null, expected a task id"),
        ("subtasks", serde_json::json!(["x"]), "`subtasks[0]` is a text, expected an object"),
        ("subtasks", serde_json::json!([{"title": "x"}]), "`subtasks[0].id` is missing"),
        ("description", serde_json::json!({}), "`description` is an object, expected a text"),
    ] {
        let error = master(serde_json::json!([{"id": 1, (field): value}])).find("trader", 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot use task 1 of `.taskmaster/tasks/tasks.json`: {expected}")
        );
        assert_eq!(error.reason(), orchestrator_contract::Reason::InvalidTask);
    }
}

#[test]
fn doubtful_status_and_unmet_dependencies_are_noted() {
    let file = ".taskmaster/tasks/tasks.json";
    for (status, noted) in
        [("done", true), ("Completed", true), ("cancelled", true), ("pending", false), ("in-progress", false)]
    {
        let found = master(serde_json::json!([{"id": 1, "title": "x", "status": status}])).find("trader", 1);
        let note = format!("task 1 is `{status}` in `{file}`, but was submitted");
        assert_eq!(found.unwrap().notes, if noted { vec![note] } else { Vec::new() });
    }
    let tasks = serde_json::json!([
        {"id": 1, "title": "x", "dependencies": [2, 3, 4, 5, "2.1"]}, {"id": 2, "title": "x", "status": "done",
        "subtasks": [{"id": 1, "title": "x", "status": "deferred"}]},
        {"id": 3, "title": "x", "status": "review"}, {"id": 4, "title": "x"},
    ]);
    assert_eq!(
        master(tasks).find("trader", 1).unwrap().notes,
        [
            "task 1 depends on tasks that are not done: 3 (review), 4 (no status), 5 (no such task), 2.1 (deferred)"
        ]
    );
}

#[test]
fn large_file_is_refused_with_size_and_limit() {
    let find = |large: &'static str| {
        let files = master(serde_json::json!([{"id": 1, "title": "x"}])).with(".taskmaster/docs/prd.txt", "");
        let reader = Reader {
            read: |path: &str| {
                let size = MAX_FILE_BYTES + 1;
                if path == large { Err(TooLarge { size }.into()) } else { Ok(files.0.get(path).cloned()) }
            },
            list: |folder: &str| Ok(files.list(folder)),
        };
        let service = &ServiceName::new("trader").unwrap();
        let query = DocumentQuery { service, task: TaskId::new(1).unwrap(), docs_directory: None };
        find_documents(&reader, &query)
    };
    let error = find(".taskmaster/tasks/tasks.json").unwrap_err();
    assert_eq!(error.to_string(), "`.taskmaster/tasks/tasks.json` has 17 MiB, but the limit is 16 MiB");
    assert_eq!(error.reason(), orchestrator_contract::Reason::InvalidTask);
    // Only its path is used.
    assert_eq!(
        find(".taskmaster/docs/prd.txt").unwrap().requirements.as_deref(),
        Some(".taskmaster/docs/prd.txt")
    );
}

#[test]
fn notes_of_many_odd_entries_and_tags_are_few() {
    let zeros = master(vec![serde_json::json!(0); 10_000].into());
    let error = zeros.find("trader", 1).unwrap_err().to_string();
    assert!(error.ends_with("`tasks[49]`, 9950 more"), "{error}");
    let mut tags = serde_json::Map::new();
    for number in 0..100 {
        tags.insert(format!("{number}{}", "x".repeat(1000)), serde_json::json!({"tasks": 7}));
    }
    tags.insert("master".to_owned(), serde_json::json!({"tasks": [{"id": 1, "title": "x"}]}));
    let text = serde_json::Value::from(tags).to_string();
    let found = Files::default().with(".taskmaster/tasks/tasks.json", text).find("trader", 1).unwrap();
    assert_eq!(found.notes.len(), 6);
    assert_eq!(found.notes[5], "95 more tags of `.taskmaster/tasks/tasks.json` have no list of tasks");
    assert!(found.notes.iter().all(|note| note.len() < 200), "{:?}", found.notes);
}

#[test]
fn fault_of_second_entry_does_not_refuse_the_first() {
    let tasks =
        serde_json::json!([{"id": 1, "title": "first"}, {"id": 1, "title": "x", "dependencies": [null]}]);
    let found = master(tasks).find("trader", 1).unwrap();
    assert_eq!(found.entry.title, "first");
    assert!(found.notes.iter().any(|note| note.ends_with("the first one was used")), "{:?}", found.notes);
    let tasks = serde_json::json!([{"id": 1, "dependencies": [null]}, {"id": 1, "title": "x"}]);
    assert!(master(tasks).find("trader", 1).is_err());
}

#[test]
fn tag_in_place_of_missing_current_one_is_noted() {
    let files = Files::default()
        .with(".taskmaster/tasks/tasks.json", r#"{"a":{"tasks":[{"id":1,"title":"x"}]}}"#)
        .with(".taskmaster/state.json", r#"{"currentTag":"gone"}"#);
    assert_eq!(
        files.find("trader", 1).unwrap().notes,
        ["`.taskmaster/tasks/tasks.json` has no tag `gone`, which is current; tag `a` was used"]
    );
    assert_eq!(files.find("a", 1).unwrap().notes, Vec::<String>::new());
}

#[test]
fn first_of_many_dependencies_are_read() {
    let tasks = serde_json::json!([{"id": 1, "title": "x", "dependencies": vec![2; 5000]}]);
    let found = master(tasks).find("trader", 1).unwrap();
    assert_eq!((found.dependencies.len(), found.entry.dependencies.len()), (200, 5000));
    let note = "task 1 has 5000 dependencies in `.taskmaster/tasks/tasks.json`; the first 200 were read";
    assert_eq!(found.notes[0], note);
}

#[test]
fn entries_without_id_are_listed_if_task_is_missing() {
    let error = master(serde_json::json!([{"title": "x"}])).find("trader", 1).unwrap_err().to_string();
    assert!(error.ends_with("; tasks: none; without an id: `tasks[0]`"), "{error}");
}

#[test]
fn prefixed_id_needs_unique_number() {
    let tasks = |ids: &[&str]| {
        master(ids.iter().map(|id| serde_json::json!({"id": id, "title": id})).collect::<Vec<_>>().into())
    };
    assert_eq!(tasks(&["HAM-1", "HAM-12"]).find("trader", 1).unwrap().entry.title, "HAM-1");
    assert_eq!(tasks(&["HAM-1", "1"]).find("trader", 1).unwrap().entry.title, "1");
    let error = tasks(&["HAM-1", "APP-1"]).find("trader", 1).unwrap_err().to_string();
    assert!(error.contains("has several tasks with the number 1: `HAM-1`, `APP-1`"), "{error}");
}

#[test]
fn unusable_state_falls_back_to_default_tag() {
    let files = Files::default()
        .with(".taskmaster/tasks/tasks.json", r#"{"a":{"tasks":[]},"mvp":{"tasks":[{"id":1}]}}"#)
        .with(".taskmaster/config.json", r#"{"global": {"defaultTag": "mvp"}}"#);
    for (state, problem) in [
        ("", "`.taskmaster/state.json` is empty"),
        ("{\"currentTag\": null}", "`.taskmaster/state.json` names no tag in `currentTag`"),
        ("{\n<<<<<<< HEAD\n", "`.taskmaster/state.json` has git conflict markers"),
        ("{", "cannot parse `.taskmaster/state.json`, line 1, column 1: EOF while parsing an object"),
    ] {
        let found = files.clone().with(".taskmaster/state.json", state).find("trader", 1).unwrap();
        assert_eq!(found.tag.as_deref(), Some("mvp"));
        assert_eq!(found.notes.first(), Some(&format!("{problem}; tag `mvp` was used")));
    }
}

#[test]
fn file_names_in_other_case_are_found() {
    let found = Files::default()
        .with(".taskmaster/docs/task_007/Task.MD", "# Task 7: Ship it")
        .with(".taskmaster/docs/PRD.md", "P")
        .with(".taskmaster/docs/ARCHITECTURE.md", "A")
        .find("trader", 7)
        .unwrap();
    assert_eq!(found.entry.title, "Ship it");
    assert_eq!(
        found.files,
        [".taskmaster/docs/task_007/Task.MD", ".taskmaster/docs/ARCHITECTURE.md", ".taskmaster/docs/PRD.md"]
    );
}

#[test]
fn criteria_without_lists_come_from_paragraphs() {
    assert_eq!(acceptance_criteria("1. One\n2) Two\n   * Three\n\nprose"), ["One", "Two", "Three"]);
    assert_eq!(acceptance_criteria("# Title\n\nFirst\nline.\n\nSecond."), ["First line.", "Second."]);
    assert_eq!(acceptance_criteria("\n---\n"), Vec::<String>::new());
}

fn json_id() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        (1u32..30).prop_map(|id| id.into()),
        (1u32..30).prop_map(|id| id.to_string().into()),
        (1u32..9, 1u32..9).prop_map(|(task, part)| format!("{task}.{part}").into()),
    ]
}

proptest! {
    #[test]
    fn tasks_file_variants_are_all_read(
        number in 1u32..1000,
        as_text: bool,
        tagged: bool,
        title in ".{0,20}",
        dependencies in prop::collection::vec(json_id(), 0..5),
        extra in "[a-z]{12,14}",
    ) {
        let id = if as_text { number.to_string().into() } else { serde_json::Value::from(number) };
        let mut task = serde_json::json!({
            "id": id, "title": title, "details": null, "dependencies": dependencies, "subtasks": null,
        });
        task[&extra] = serde_json::json!({"anything": [1, null]});
        let list = serde_json::json!({"tasks": [task], "metadata": {}});
        let text = if tagged { serde_json::json!({"t": list}) } else { list }.to_string();
        let found = Files::default().with(".taskmaster/tasks/tasks.json", text).find("trader", number).unwrap();
        let words: Vec<_> = title.split_whitespace().collect();
        let words = if words.is_empty() { format!("Task {number}") } else { words.join(" ") };
        prop_assert_eq!(&found.entry.title, &words);
        prop_assert_eq!(found.dependencies.len(), dependencies.len());
        prop_assert_eq!(found.tag.is_some(), tagged);
        // Unknown fields are retained for the agent.
        let kept = serde_json::json!({"anything": [1, null]});
        prop_assert_eq!(found.entry.other.get(&extra), Some(&kept));
    }

    #[test]
    fn tasks_file_of_arbitrary_text_never_panics(text in r#"[\[\]{}:,"a-z0-9\n ]{0,40}"#, markdown in ".{0,60}") {
        let result = Files::default().with(".taskmaster/tasks/tasks.json", text).find("trader", 1);
        prop_assert!(result.is_ok() || !result.unwrap_err().to_string().is_empty());
        prop_assert!(acceptance_criteria(&markdown).iter().all(|criterion| !criterion.is_empty()));
    }
}
