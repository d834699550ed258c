//! Documents that an earlier docs run wrote, and that only its pull request has.

use orchestrator_contract::outcome::{DocsResult, DocsStatus};
use orchestrator_contract::{RunName, TaskId};

/// What an earlier docs run of the same tasks left on its branch.
#[derive(Clone, Debug)]
pub struct EarlierDocs {
    pub run: RunName,
    /// URL of its pull request.
    pub pull_request: String,
    /// Tasks of which it wrote the documents.
    pub tasks: Vec<TaskId>,
}

impl EarlierDocs {
    /// Returns what a run left; `None` if it wrote no documents.
    #[must_use]
    pub fn new(run: RunName, pull_request: String, results: &[DocsResult]) -> Option<Self> {
        let written = |result: &&DocsResult| match result.status {
            DocsStatus::Written => true,
            // Of an earlier run that this one continued: on the same branch.
            DocsStatus::Unchanged => result.written_by_run.is_some(),
            DocsStatus::Failed | DocsStatus::NotWritten => false,
        };
        let tasks: Vec<TaskId> = results.iter().filter(written).map(|result| result.task_id).collect();
        (!tasks.is_empty()).then_some(Self { run, pull_request, tasks })
    }
}

/// Returns a warning for each pull request that has documents which a docs run is about to write.
///
/// `selected` is the task of the run, or all. Documents that `is_merged` knows wait nowhere.
#[must_use]
pub fn waiting_documents(
    selected: Option<TaskId>,
    newest_first: &[EarlierDocs],
    is_merged: impl Fn(TaskId) -> bool,
) -> Vec<String> {
    let mut pulls: Vec<(&EarlierDocs, Vec<TaskId>)> = Vec::new();
    let mut seen: Vec<TaskId> = Vec::new();
    for docs in newest_first {
        for &task in &docs.tasks {
            // The newest documents of a task count.
            if seen.contains(&task) || selected.is_some_and(|selected| selected != task) {
                continue;
            }
            seen.push(task);
            if is_merged(task) {
                continue;
            }
            match pulls.iter_mut().find(|(pull, _)| pull.pull_request == docs.pull_request) {
                Some((_, tasks)) => tasks.push(task),
                None => pulls.push((docs, vec![task])),
            }
        }
    }
    pulls.into_iter().map(|(docs, tasks)| warning(docs, tasks)).collect()
}

fn warning(docs: &EarlierDocs, mut tasks: Vec<TaskId>) -> String {
    tasks.sort_unstable_by_key(|task| u32::from(*task));
    let (last, others) =
        tasks.split_last().map_or((String::new(), &[][..]), |(last, others)| (last.to_string(), others));
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let names = match others.as_slice() {
        [] => format!("task {last}"),
        others => format!("tasks {} and {last}", others.join(", ")),
    };
    let EarlierDocs { run, pull_request, tasks: _ } = docs;
    format!(
        "documents of {names} wait in {pull_request} of `{run}`: this run writes them again unless that pull \
         request is merged"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> TaskId {
        TaskId::new(number).unwrap()
    }

    fn docs(number: u32, pull: u32, tasks: &[u32]) -> EarlierDocs {
        EarlierDocs {
            run: RunName::new(format!("r{number}")).unwrap(),
            pull_request: format!("#{pull}"),
            tasks: tasks.iter().map(|&task| id(task)).collect(),
        }
    }

    /// The task, earlier runs, tasks whose documents exist, and the warnings.
    type Case<'a> = (Option<u32>, Vec<EarlierDocs>, &'a [u32], &'a [&'a str]);

    #[test]
    fn waiting_documents_are_named_once_with_pull_request() {
        let cases: &[Case<'_>] = &[
            (None, vec![], &[], &[]),
            (None, vec![docs(1, 7, &[5])], &[], &["documents of task 5 wait in #7 of `r1`"]),
            (Some(5), vec![docs(1, 7, &[5])], &[], &["documents of task 5 wait in #7 of `r1`"]),
            (Some(6), vec![docs(1, 7, &[5])], &[], &[]),
            (None, vec![docs(1, 7, &[5])], &[5], &[]),
            (
                None,
                vec![docs(1, 7, &[9, 5, 10])],
                &[],
                &["documents of tasks 5, 9 and 10 wait in #7 of `r1`"],
            ),
            (None, vec![docs(1, 7, &[9, 5])], &[9], &["documents of task 5 wait in #7 of `r1`"]),
            (
                None,
                vec![docs(2, 8, &[5]), docs(1, 7, &[5, 6])],
                &[],
                &["documents of task 5 wait in #8 of `r2`", "documents of task 6 wait in #7 of `r1`"],
            ),
            // Two attempts on one branch.
            (
                None,
                vec![docs(2, 7, &[6]), docs(1, 7, &[5])],
                &[],
                &["documents of tasks 5 and 6 wait in #7 of `r2`"],
            ),
            (None, vec![docs(2, 8, &[5]), docs(1, 7, &[5])], &[5], &[]),
        ];
        for (selected, earlier, merged, expected) in cases {
            let merged: Vec<TaskId> = merged.iter().map(|&task| id(task)).collect();
            let warnings = waiting_documents(selected.map(id), earlier, |task| merged.contains(&task));
            assert!(warnings.iter().all(|text| text.contains("writes them again unless")), "{warnings:?}");
            let shown: Vec<&str> =
                warnings.iter().filter_map(|text| Some(text.split_once(": ")?.0)).collect();
            assert_eq!(shown, *expected, "{selected:?} {earlier:?}");
        }
    }

    #[test]
    fn only_written_documents_wait() {
        let result = |status: &str, by: Option<&str>| -> DocsResult {
            serde_json::from_value(serde_json::json!({
                "task_id": 5, "title": "t", "status": status, "written_by_run": by,
            }))
            .unwrap()
        };
        for (status, by, waits) in [
            ("written", None, true),
            ("unchanged", None, false),
            ("unchanged", Some("r1"), true),
            ("failed", None, false),
            ("not_written", None, false),
        ] {
            let run = RunName::new("r2").unwrap();
            let found = EarlierDocs::new(run, "#7".to_owned(), &[result(status, by)]);
            assert_eq!(found.is_some(), waits, "{status} {by:?}");
        }
    }
}
