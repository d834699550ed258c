//! What is said about the work: pull request, comment, commit message.
//!
//! Pure. Text of the agent and of task documents is shown, not obeyed: it cannot notify
//! people, hide what follows it or forge our marks.

mod documents;
mod markdown;

use orchestrator_contract::outcome::{
    CommandResult, McpServer, McpStatus, Revision, Usage, Verification, VerificationStatus, Work,
};
use orchestrator_contract::{Reason, RunName, ServiceName, TaskId};

use markdown::{code, code_block, cut, line, neutralize, quoted_lines};

pub use documents::{DocumentsText, render_documents_body, render_documents_title};

/// The longest body; GitHub takes 65,536 characters.
pub const BODY_MAX: usize = 60_000;

/// The longest title; GitHub takes 256 characters.
const TITLE_MAX: usize = 200;

/// The longest first line of a commit message: more is cut by most programs that show it.
const SUBJECT_MAX: usize = 100;

/// How much of each part is shown, in characters, so that all parts together fit.
const DESCRIPTION_MAX: usize = 8_000;
const SUMMARY_MAX: usize = 16_000;
const LIST_MAX: usize = 9_000;
const VERIFICATION_MAX: usize = 14_000;
const OUTPUT_MAX: usize = 800;
const LINE_MAX: usize = 300;

/// How many entries of each list are shown.
const CRITERIA_MAX: usize = 40;
const COMMANDS_MAX: usize = 10;
const NOTES_MAX: usize = 20;

/// Everything that a pull request says.
#[derive(Clone, Copy, Debug)]
pub struct PullRequestText<'a> {
    /// The run.
    pub run: &'a RunName,
    /// The task; none for a docs run over all tasks.
    pub task: Option<TaskId>,
    /// The task's title.
    pub title: &'a str,
    /// The task's description.
    pub description: Option<&'a str>,
    /// What the agent says that it did.
    pub summary: Option<&'a str>,
    /// The task's acceptance criteria.
    pub criteria: &'a [String],
    /// What the service's checks said.
    pub verification: &'a Verification,
    /// What the work is based on.
    pub base: &'a Revision,
    /// The branch.
    pub branch: &'a str,
    /// Its commit.
    pub oid: &'a str,
    /// How many commits it has that the base has not.
    pub commits: u32,
    /// What the agent used.
    pub usage: &'a Usage,
    /// How long the run took.
    pub minutes: f64,
    /// What a reviewer should know, such as a merge that was left.
    pub notes: &'a [String],
    /// Authors of commits other than the agent.
    pub other_authors: &'a [String],
    /// The MCP servers, of which those that the agent did not have are named.
    pub mcp_servers: &'a [McpServer],
}

/// The title of a pull request: `{title} (task {id})`.
#[must_use]
pub fn render_title(title: &str, task: Option<TaskId>) -> String {
    let title = line(title, TITLE_MAX);
    match task {
        Some(task) if title.is_empty() => format!("Task {task}"),
        Some(task) => format!("{title} (task {task})"),
        None if title.is_empty() => "Task documents".to_owned(),
        None => title,
    }
}

/// The body of a pull request, in Markdown, of at most [`BODY_MAX`] characters.
#[must_use]
pub fn render_body(text: &PullRequestText<'_>) -> String {
    let PullRequestText { task, title, description, summary, criteria, verification, .. } = *text;
    let mut sections = Vec::new();
    let title = neutralize(&line(title, LINE_MAX));
    let heading = match task {
        Some(task) if title.is_empty() => format!("## Task {task}"),
        Some(task) => format!("## Task {task}: {title}"),
        None => format!("## {title}"),
    };
    sections.push(heading);
    sections.extend(description.map(|text| sanitize_multiline(text, DESCRIPTION_MAX)));
    if let Some(summary) = summary.map(str::trim).filter(|summary| !summary.is_empty()) {
        sections.push(format!("### What was done\n\n{}", sanitize_multiline(summary, SUMMARY_MAX)));
    }
    if !criteria.is_empty() {
        sections.push(format!("### Acceptance criteria\n\n{}", list(criteria, CRITERIA_MAX)));
    }
    sections.push(render_verification(verification));
    let notes = notes(text);
    if !notes.is_empty() {
        sections.push(format!("### Notes\n\n{}", list(&notes, NOTES_MAX)));
    }
    sections.push(render_summary_table(text));
    cut(
        &sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n\n"),
        BODY_MAX,
    )
}

/// Foreign text of several lines. Cut before it is made harmless, which takes longer the
/// longer a line is, and after, because that makes it longer.
fn sanitize_multiline(text: &str, most: usize) -> String {
    cut(&neutralize(&cut(text.trim(), most)), most)
}

fn render_verification(verification: &Verification) -> String {
    let Verification { status, commands } = verification;
    let verdict = match status {
        VerificationStatus::NotConfigured => "Not verified: the service has no verify commands.",
        VerificationStatus::NotRun => "Not verified.",
        VerificationStatus::Passed => "Every command succeeded.",
        VerificationStatus::Failed => "**A command failed.**",
    };
    let mut parts = vec![format!("### Verification\n\n{verdict}\n")];
    parts.extend(commands.iter().take(COMMANDS_MAX).map(render_command));
    cut(parts.join("\n").trim_end(), VERIFICATION_MAX)
}

fn render_command(report: &CommandResult) -> String {
    let CommandResult { command, exit_code, seconds, output } = report;
    let end = match exit_code {
        Some(0) => "succeeded".to_owned(),
        Some(code) => format!("failed with exit code {code}"),
        None => "was ended by a signal or the time limit".to_owned(),
    };
    let mut text = format!("- {} {end} after {seconds:.0} s", code(&line(command, LINE_MAX)));
    let output = output.trim();
    if !output.is_empty() {
        let skipped = output.chars().count().saturating_sub(OUTPUT_MAX);
        let tail: String = output.chars().skip(skipped).collect();
        text.push_str("\n\n");
        text.push_str(&quoted_lines(&code_block(&tail), "  "));
        text.push('\n');
    }
    text
}

fn notes(text: &PullRequestText<'_>) -> Vec<String> {
    let mut notes = text.notes.to_vec();
    if !text.other_authors.is_empty() {
        notes.push(format!("Commits by others are on the branch: {}", text.other_authors.join(", ")));
    }
    for server in text.mcp_servers {
        let McpServer { name, status, server: _, tools: _, note } = server;
        let what = match status {
            McpStatus::Connected => continue,
            McpStatus::Skipped => "was left out",
            McpStatus::Failed => "failed",
        };
        let why = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        notes.push(format!("MCP server {name} {what}{why}"));
    }
    notes
}

fn render_summary_table(text: &PullRequestText<'_>) -> String {
    let PullRequestText { run, base, branch, oid, commits, usage, minutes, .. } = *text;
    let short = |oid: &str| code(&oid.chars().take(12).collect::<String>());
    let plural = if commits == 1 { "" } else { "s" };
    let rows = [
        ("Run", code(run.as_str())),
        ("Base", format!("{} at {}", code(&line(&base.branch, LINE_MAX)), short(&base.oid))),
        ("Branch", format!("{} at {}, {commits} commit{plural}", code(&line(branch, LINE_MAX)), short(oid))),
        ("Used", format!("${:.2}, {} turns, {minutes:.1} minutes", usage.cost_usd, usage.turns)),
    ];
    let rows = rows.map(|(name, value)| format!("| {name} | {} |", value.replace('|', "\\|")));
    format!("| | |\n|---|---|\n{}", rows.join("\n"))
}

/// A list, each entry in one line.
fn list(entries: &[String], most: usize) -> String {
    let mut lines: Vec<String> =
        entries.iter().take(most).map(|entry| format!("- {}", neutralize(&line(entry, LINE_MAX)))).collect();
    let more = entries.len().saturating_sub(most);
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    cut(&lines.join("\n"), LIST_MAX)
}

/// An attempt that did not succeed, told on the pull request that an earlier one opened.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    /// The run.
    pub run: &'a RunName,
    /// Why it ended.
    pub reason: Reason,
    /// Cause and next step.
    pub message: &'a str,
    /// Where its work is.
    pub work: &'a Work,
    /// What the agent used.
    pub usage: &'a Usage,
}

/// The comment about an attempt that did not succeed.
#[must_use]
pub fn render_failed_attempt(attempt: &FailedAttempt<'_>) -> String {
    let FailedAttempt { run, reason, message, work, usage } = *attempt;
    let place = match (&work.branch, &work.oid) {
        (Some(branch), Some(oid)) => {
            let short: String = oid.chars().take(12).collect();
            format!("Its work is on {} at {}.", code(&line(branch, LINE_MAX)), code(&short))
        }
        (Some(branch), None) => format!("Its work is on {}.", code(&line(branch, LINE_MAX))),
        (None, _) if work.path.is_some() => "Its work is kept in the workspace.".to_owned(),
        (None, _) => "It left no work.".to_owned(),
    };
    let end = if reason == Reason::Stopped { "was stopped" } else { "did not succeed" };
    format!(
        "**Run {} {end}: {reason}**\n\n{}\n\n{place} It used ${:.2} and {} turns.",
        code(run.as_str()),
        neutralize(&line(message, 2_000)),
        usage.cost_usd,
        usage.turns
    )
}

/// The message of a commit of ours: `{service}: task {id}: {title}`, and trailers.
#[must_use]
pub fn render_commit_message(
    service: &ServiceName,
    task: Option<TaskId>,
    title: &str,
    run: &RunName,
) -> String {
    let title = line(title, TITLE_MAX);
    let task_part = task.map(|task| format!("task {task}"));
    let mut parts = vec![service.to_string()];
    parts.extend(task_part);
    if !title.is_empty() {
        parts.push(title);
    } else if task.is_none() {
        parts.push("task documents".to_owned());
    }
    let subject = line(&parts.join(": "), SUBJECT_MAX);
    let trailer = task.map(|task| format!("Task: {task}\n")).unwrap_or_default();
    format!("{subject}\n\n{trailer}Run: {run}\n")
}

#[cfg(test)]
mod tests;
