//! Renders the pull request of a docs run.

use orchestrator_contract::outcome::{DocsResult, DocsStatus, DocumentSources, Revision, Usage};
use orchestrator_contract::{RunName, TaskId, figures};

use super::markdown::{
    MAX_BODY_CHARS, MAX_LINE_CHARS, MAX_NOTES, code, inline, join_within, line, list, plain,
};

/// Maximum tasks in the table.
const MAX_ROWS: usize = 200;

/// Maximum characters of a title or of findings in a row.
const MAX_CELL_CHARS: usize = 120;

/// Content of the pull request of a docs run.
#[derive(Clone, Copy, Debug)]
pub struct DocumentsText<'a> {
    pub run: &'a RunName,
    /// Task, or `None` for all tasks.
    pub task: Option<TaskId>,
    /// Result of each task.
    pub results: &'a [DocsResult],
    /// Sources of the documents.
    pub source: Option<&'a DocumentSources>,
    /// Base branch and commit.
    pub base: &'a Revision,
    pub branch: &'a str,
    /// Commit of the branch.
    pub oid: &'a str,
    /// Usage of all agents in this run.
    pub usage: &'a Usage,
    /// Duration of the run.
    pub minutes: f64,
    /// Notes for reviewers.
    pub notes: &'a [String],
}

impl DocumentsText<'_> {
    /// Returns the number of tasks with new documents on the branch.
    fn written(&self) -> usize {
        self.results.iter().filter(|task| is_new(task)).count()
    }
}

fn is_new(task: &DocsResult) -> bool {
    task.status == DocsStatus::Written || task.written_by_run.is_some()
}

/// Returns the title: `Documents of task 5: Match orders`, or `Documents of 3 tasks`.
#[must_use]
pub fn render_documents_title(text: &DocumentsText<'_>) -> String {
    plain(&title(text))
}

fn title(text: &DocumentsText<'_>) -> String {
    match (text.task, text.results) {
        (Some(task), [only]) => format!("Documents of task {task}: {}", line(&only.title, MAX_CELL_CHARS)),
        (Some(task), _) => format!("Documents of task {task}"),
        (None, _) => {
            let written = text.written();
            format!("Documents of {written} task{}", if written == 1 { "" } else { "s" })
        }
    }
}

/// Returns the body: Markdown with a table of result, time and cost per task.
#[must_use]
pub fn render_documents_body(text: &DocumentsText<'_>) -> String {
    let DocumentsText { run, results, source, base, branch, oid, usage, minutes, notes, .. } = *text;
    let mut sections = vec![format!("## {}", inline(&title(text)))];
    if let Some(source) = source {
        let files: Vec<String> = source.files.iter().map(|file| code(file)).collect();
        let tag = source.tag.as_ref().map(|tag| format!(", tag {}", code(tag))).unwrap_or_default();
        sections.push(format!(
            "Written from {}{tag}. Please review: agents implement the tasks from these documents.",
            files.join(", ")
        ));
    }
    let mut rows = vec![
        "| Task | Title | Documents | Time | Turns | Cost |".to_owned(),
        "|---:|---|---|---:|---:|---:|".to_owned(),
    ];
    rows.extend(results.iter().take(MAX_ROWS).map(row));
    let more = results.len().saturating_sub(MAX_ROWS);
    rows.extend((more > 0).then(|| format!("| | and {more} more | | | | |")));
    sections.push(rows.join("\n"));
    if !notes.is_empty() {
        sections.push(format!("### Notes\n\n{}", list(notes, MAX_NOTES)));
    }
    let short = |oid: &str| code(&oid.chars().take(12).collect::<String>());
    let facts = [
        ("Run", code(run.as_str())),
        ("Base", format!("{} at {}", code(&line(&base.branch, MAX_LINE_CHARS)), short(&base.oid))),
        ("Branch", format!("{} at {}", code(&line(branch, MAX_LINE_CHARS)), short(oid))),
        ("Usage", figures::usage(minutes * 60.0, usage.turns, usage.cost_usd)),
    ];
    let facts = facts.map(|(name, value)| format!("| {name} | {} |", value.replace('|', "\\|")));
    sections.push(format!("| | |\n|---|---|\n{}", facts.join("\n")));
    join_within(&sections, "\n\n", MAX_BODY_CHARS)
}

fn row(task: &DocsResult) -> String {
    let DocsResult {
        task_id,
        title,
        status: state,
        findings,
        minutes,
        turns,
        cost_usd,
        session_id: _,
        written_by_run,
    } = task;
    let result = match (state, written_by_run) {
        (DocsStatus::Unchanged, Some(run)) => format!("written by {}", code(run.as_str())),
        (DocsStatus::Unchanged, None) => "unchanged".to_owned(),
        (DocsStatus::Written, _) => "written".to_owned(),
        (DocsStatus::Failed, _) => {
            format!("**none**: {}", inline(&line(&findings.join("; "), MAX_CELL_CHARS)))
        }
        (DocsStatus::NotWritten, _) => "**none**: the run ended before this task".to_owned(),
    };
    let used = if is_new(task) || *turns > 0 {
        format!("{} | {turns} | {}", figures::duration(*minutes * 60.0), figures::cost(*cost_usd))
    } else {
        " | | ".to_owned()
    };
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| {task_id} | {} | {} | {used} |", cell(&inline(&line(title, MAX_CELL_CHARS))), cell(&result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_pull_request_body_matches_snapshot() {
        let task = |id: u32, title: &str, state: DocsStatus| DocsResult {
            task_id: TaskId::new(id).unwrap(),
            title: title.to_owned(),
            status: state,
            findings: Vec::new(),
            minutes: 1.25,
            turns: 7,
            cost_usd: 0.5,
            session_id: None,
            written_by_run: None,
        };
        let run = RunName::new("trader-claude-agent-1-docs-attempt2").unwrap();
        let results = [
            DocsResult {
                written_by_run: Some(RunName::new("trader-claude-agent-1-docs-attempt1").unwrap()),
                ..task(1, "Set up", DocsStatus::Unchanged)
            },
            DocsResult { turns: 0, ..task(2, "Left", DocsStatus::Unchanged) },
            task(3, "Match | orders for @everyone", DocsStatus::Written),
            DocsResult {
                findings: vec!["`task.md` is missing".to_owned()],
                ..task(4, "Settle", DocsStatus::Failed)
            },
            DocsResult { turns: 0, ..task(5, "Report", DocsStatus::NotWritten) },
        ];
        let source = DocumentSources {
            source: orchestrator_contract::outcome::DocumentSource::TaskEntry,
            files: vec![".taskmaster/tasks/tasks.json".to_owned()],
            tag: Some("master".to_owned()),
        };
        let base = Revision {
            url: "https://github.com/myorg/platform".to_owned(),
            branch: "main".to_owned(),
            oid: "89e6c98d92887913cadf06b2adb97f26cde4849b".to_owned(),
        };
        let text = DocumentsText {
            run: &run,
            task: None,
            results: &results,
            source: Some(&source),
            base: &base,
            branch: "docs/all-tasks-1",
            oid: "3f786850e387550fdab836ed7e6dc881de23001b",
            usage: &Usage { turns: 14, cost_usd: 1.0, ..Usage::default() },
            minutes: 4.0,
            notes: &["skipped: x.txt".to_owned()],
        };
        insta::assert_snapshot!(format!(
            "{}\n\n{}",
            render_documents_title(&text),
            render_documents_body(&text)
        ));
    }
}
