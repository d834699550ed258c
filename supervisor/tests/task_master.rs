//! Files that Task Master, editors and people leave in a platform repository.
//!
//! Each is read, with a note if something is odd, or gives one sentence with file, fault and cure.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use orchestrator_contract::{ServiceName, TaskId};
use supervisor::workspace::documents::{
    DocumentQuery, DocumentsError, Reader, TaskDocuments, find_documents,
};

const FILE: &str = ".taskmaster/tasks/tasks.json";

/// Cases that are read: title and tag of task 1, and a part of the only note, or `""` without notes.
const READ: &[(&str, &str, Option<&str>, &str)] = &[
    ("T2-new-entry-fields", "A", Some("master"), ""),
    (
        "TM01-null-dependency-elsewhere",
        "Task 1",
        Some("master"),
        "task 2 of `FILE` was read without its odd fields: `dependencies[0]` is null",
    ),
    (
        "TM02-subtasks-as-texts-elsewhere",
        "Task 1",
        Some("master"),
        "task 2 of `FILE` was read without its odd fields: `subtasks[0]` is a text",
    ),
    (
        "TM04-root-tasks-beside-tags",
        "LIVE master",
        Some("master"),
        "the tasks of `FILE` outside of its tags were ignored",
    ),
    ("TM05-utf16", "Task 1", Some("master"), ""),
    (
        "TM06a-state-empty",
        "Task 1",
        Some("master"),
        "`.taskmaster/state.json` is empty; tag `master` was used",
    ),
    (
        "TM06c-state-null-tag",
        "Task 1",
        Some("master"),
        "`.taskmaster/state.json` names no tag in `currentTag`",
    ),
    ("TM07-duplicate-ids", "first", Some("master"), "`FILE` has 2 entries of task 1; the first one was used"),
    ("TM09-upper-case-prd", "Task 1", Some("master"), ""),
    ("TM10-acceptance-in-entry", "Task 1", Some("master"), ""),
    ("TM11-bom-crlf", "Task 1", Some("master"), ""),
    ("TM14-ham-ids", "Task HAM-1", Some("master"), ""),
    ("TM16-comment-trailing-comma", "x", Some("master"), ""),
    ("TM18-default-tag", "in mvp", Some("mvp"), ""),
    (
        "TM20-subtask-without-id-elsewhere",
        "Task 1",
        Some("master"),
        "task 2 of `FILE` was read without its odd fields: `subtasks[0].id` is missing",
    ),
    ("TM22-title-null", "Task 1", Some("master"), "task 1 has no title in `FILE`"),
    ("TM23-title-newline-emoji-quotes", "Fix \"quotes\" and `ticks` 🚀 <b> $(id)", Some("master"), ""),
    ("TM24-deep-doc-dir-naming", "Task 1", Some("master"), ""),
    ("TM25-status-done", "Task 1", Some("master"), "task 1 is `done` in `FILE`, but was submitted"),
    ("TM26-status-cancelled", "Task 1", Some("master"), "task 1 is `cancelled` in `FILE`, but was submitted"),
    (
        "TM27-tasks-null-in-other-tag",
        "Task 1",
        Some("master"),
        "`other.tasks` of `FILE` is null, expected a list of tasks",
    ),
];

/// Cases that are not read, with the error.
const REFUSED: &[(&str, &str)] = &[
    (
        "TM08-legacy-root-layout",
        "`tasks/tasks.json` is in the layout of an older Task Master: run `task-master migrate` and push the result",
    ),
    (
        "TM13-slug-ids",
        "`FILE` has no task 1; tasks: m1-cli-renderer, m1-metrics; a task is submitted by its number, so give each \
         a number as its `id`",
    ),
    ("TM28-empty-file", "`FILE` is empty: restore it from an earlier commit"),
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/task_master")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Reads task 1 of a case.
fn read_case(case: &str) -> Result<TaskDocuments, Box<DocumentsError>> {
    let root = cases().join(case);
    assert!(root.is_dir(), "there is no case `{case}`");
    let reader = Reader {
        read: |path: &str| {
            let path = root.join(path);
            if path.is_file() { fs::read(path).map(Some) } else { Ok(None) }
        },
        list: |folder: &str| Ok(names(&root.join(folder))),
    };
    let (service, task) = (ServiceName::new("trader").unwrap(), TaskId::new(1).unwrap());
    find_documents(&reader, &DocumentQuery { service: &service, task, docs_directory: None })
        .map_err(Box::new)
}

#[test]
fn readable_task_files_are_read_with_notes() {
    for (case, title, tag, note) in READ {
        let found = read_case(case).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((found.entry.title.as_str(), found.tag.as_deref()), (*title, *tag), "{case}");
        let note = note.replace("FILE", FILE);
        let is_noted = match found.notes.as_slice() {
            [] => note.is_empty(),
            [only] => !note.is_empty() && only.contains(&note),
            _ => false,
        };
        assert!(is_noted, "{case}: {:?}", found.notes);
    }
}

#[test]
fn unreadable_task_files_give_one_sentence_with_cure() {
    for (case, expected) in REFUSED {
        let error = read_case(case).expect_err(case).to_string();
        assert_eq!(error, expected.replace("FILE", FILE), "{case}");
    }
}

#[test]
fn each_case_is_in_a_table() {
    let listed = READ.iter().map(|(case, ..)| *case).chain(REFUSED.iter().map(|(case, _)| *case));
    let listed: BTreeSet<String> = listed.map(str::to_owned).collect();
    assert_eq!(listed, names(&cases()).into_iter().collect());
}

#[test]
fn upper_case_documents_are_found() {
    let found = read_case("TM09-upper-case-prd").unwrap();
    assert_eq!(found.requirements.as_deref(), Some(".taskmaster/docs/PRD.md"));
    assert_eq!(found.architecture.as_deref(), Some(".taskmaster/docs/ARCHITECTURE.md"));
}

#[test]
fn zero_padded_document_folder_is_found() {
    let found = read_case("TM24-deep-doc-dir-naming").unwrap();
    assert_eq!(found.task.as_deref(), Some("# zero padded"));
}

#[test]
fn new_entry_fields_are_read() {
    let found = read_case("T2-new-entry-fields").unwrap();
    let requirements = &found.entry.requirements;
    assert_eq!(found.acceptance_criteria, ["CRIT-ONE sorted"]);
    assert_eq!(requirements.scope, ["Out of scope: EXCL-THREE billing"]);
    assert_eq!(requirements.technical_constraints, ["CONS-FOUR no unsafe"]);
    assert_eq!(requirements.relevant_files[0].path, "FILE-FIVE.rs");
}
