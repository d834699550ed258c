//! What a pull request says about documents that were written.

use orchestrator_contract::outcome::{DocsResult, DocsStatus, DocumentSources, Revision, Usage};
use orchestrator_contract::{RunName, TaskId};

use super::markdown::{code, cut, line, neutralize};
use super::{BODY_MAX, LINE_MAX, NOTES_MAX, list};

/// How many tasks the table shows.
const ROWS_MAX: usize = 200;

/// How much of a title or of findings a row shows.
const CELL_MAX: usize = 120;

/// Everything that a pull request says about documents.
#[derive(Clone, Copy, Debug)]
pub struct DocumentsText<'a> {
    /// The run.
    pub run: &'a RunName,
    /// The task; all if none.
    pub task: Option<TaskId>,
    /// What became of each task.
    pub documented: &'a [DocsResult],
    /// What they were made from.
    pub source: Option<&'a DocumentSources>,
    /// What the branch is based on.
    pub base: &'a Revision,
    /// The branch.
    pub branch: &'a str,
    /// Its commit.
    pub oid: &'a str,
    /// What the agents used in this run.
    pub usage: &'a Usage,
    /// How long the run took.
    pub minutes: f64,
    /// What a reviewer should know.
    pub notes: &'a [String],
}

impl DocumentsText<'_> {
    /// The tasks whose documents are on the branch and not on its base.
    fn written(&self) -> usize {
        self.documented.iter().filter(|task| is_new(task)).count()
    }
}

fn is_new(task: &DocsResult) -> bool {
    task.status == DocsStatus::Written || task.written_by_run.is_some()
}

/// The title: `Documents of task 5: Match orders`, or of how many tasks.
#[must_use]
pub fn render_documents_title(text: &DocumentsText<'_>) -> String {
    match (text.task, text.documented) {
        (Some(task), [only]) => format!("Documents of task {task}: {}", line(&only.title, CELL_MAX)),
        (Some(task), _) => format!("Documents of task {task}"),
        (None, _) => {
            let written = text.written();
            format!("Documents of {written} task{}", if written == 1 { "" } else { "s" })
        }
    }
}

/// The body, in Markdown: a table of what was written, cost and time per task.
#[must_use]
pub fn render_documents_body(text: &DocumentsText<'_>) -> String {
    let DocumentsText { run, documented, source, base, branch, oid, usage, minutes, notes, .. } = *text;
    let mut sections = vec![format!("## {}", neutralize(&render_documents_title(text)))];
    if let Some(source) = source {
        let files: Vec<String> = source.files.iter().map(|file| code(file)).collect();
        let tag = source.tag.as_ref().map(|tag| format!(", tag {}", code(tag))).unwrap_or_default();
        sections.push(format!(
            "Written from {}{tag}. Review them: an agent works from what they say.",
            files.join(", ")
        ));
    }
    let mut rows = vec![
        "| Task | Title | Documents | Minutes | Turns | Cost |".to_owned(),
        "|---:|---|---|---:|---:|---:|".to_owned(),
    ];
    rows.extend(documented.iter().take(ROWS_MAX).map(row));
    let more = documented.len().saturating_sub(ROWS_MAX);
    rows.extend((more > 0).then(|| format!("| | and {more} more | | | | |")));
    sections.push(rows.join("\n"));
    if !notes.is_empty() {
        sections.push(format!("### Notes\n\n{}", list(notes, NOTES_MAX)));
    }
    let short = |oid: &str| code(&oid.chars().take(12).collect::<String>());
    let facts = [
        ("Run", code(run.as_str())),
        ("Base", format!("{} at {}", code(&line(&base.branch, LINE_MAX)), short(&base.oid))),
        ("Branch", format!("{} at {}", code(&line(branch, LINE_MAX)), short(oid))),
        ("Used", format!("${:.2}, {} turns, {minutes:.1} minutes", usage.cost_usd, usage.turns)),
    ];
    let facts = facts.map(|(name, value)| format!("| {name} | {} |", value.replace('|', "\\|")));
    sections.push(format!("| | |\n|---|---|\n{}", facts.join("\n")));
    cut(&sections.join("\n\n"), BODY_MAX)
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
    let what = match (state, written_by_run) {
        (DocsStatus::Unchanged, Some(run)) => format!("written by {}", code(run.as_str())),
        (DocsStatus::Unchanged, None) => "left as they were".to_owned(),
        (DocsStatus::Written, _) => "written".to_owned(),
        (DocsStatus::Failed, _) => format!("**none**: {}", neutralize(&line(&findings.join("; "), CELL_MAX))),
        (DocsStatus::NotWritten, _) => "**none**: the run ended before".to_owned(),
    };
    let used = if is_new(task) || *turns > 0 {
        format!("{minutes:.1} | {turns} | ${cost_usd:.2}")
    } else {
        " | | ".to_owned()
    };
    let cell = |text: &str| text.replace('|', "\\|");
    format!("| {task_id} | {} | {} | {used} |", cell(&neutralize(&line(title, CELL_MAX))), cell(&what))
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
        let documented = [
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
            documented: &documented,
            source: Some(&source),
            base: &base,
            branch: "docs/all-tasks-1",
            oid: "3f786850e387550fdab836ed7e6dc881de23001b",
            usage: &Usage { turns: 14, cost_usd: 1.0, ..Usage::default() },
            minutes: 4.0,
            notes: &["left out: x.txt".to_owned()],
        };
        insta::assert_snapshot!(format!(
            "{}\n\n{}",
            render_documents_title(&text),
            render_documents_body(&text)
        ));
    }
}
