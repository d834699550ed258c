//! Renders pull requests, comments and commit messages (pure).
//!
//! Text of the agent and of task documents is untrusted: it is neutralized, so that it cannot
//! mention users, hide following text or forge the markers of comments.

mod documents;
mod markdown;

use orchestrator_contract::outcome::{
    CommandResult, McpServer, McpStatus, Revision, Usage, Verification, VerificationStatus, Work,
};
use orchestrator_contract::{Reason, RunName, ServiceName, TaskId, figures};

use markdown::{
    MAX_BODY_CHARS, MAX_LINE_CHARS, MAX_LIST_CHARS, MAX_NOTES, block, code, code_block, inline, join_within,
    line, list, list_within, plain, quoted_lines,
};

pub use documents::{DocumentsText, render_documents_body, render_documents_title};

/// Maximum characters of a title; GitHub allows 256.
const MAX_TITLE_CHARS: usize = 200;

/// Maximum characters of the first line of a commit message; most programs truncate longer ones.
const MAX_SUBJECT_CHARS: usize = 100;

/// Maximum characters of each part, so that all parts together fit into the body.
const MAX_DESCRIPTION_CHARS: usize = 6_000;
const MAX_SHORT_LIST_CHARS: usize = 1_200;
const MAX_SUMMARY_CHARS: usize = 16_000;
const MAX_VERIFICATION_CHARS: usize = 14_000;
const MAX_OUTPUT_CHARS: usize = 800;

/// Maximum entries of each list.
const MAX_CRITERIA: usize = 40;
const MAX_COMMANDS: usize = 10;
const MAX_KEPT: usize = 20;

/// Content of a pull request.
#[derive(Clone, Copy, Debug)]
pub struct PullRequestText<'a> {
    pub run: &'a RunName,
    /// Task; `None` for a docs run over all tasks.
    pub task: Option<TaskId>,
    /// Title of the task.
    pub title: &'a str,
    /// Description of the task.
    pub description: Option<&'a str>,
    /// Summary of the agent.
    pub summary: Option<&'a str>,
    /// Acceptance criteria of the task.
    pub criteria: &'a [String],
    /// What belongs to the task, and what does not.
    pub scope: &'a [String],
    /// Technical constraints of the task.
    pub constraints: &'a [String],
    /// Results of the verify commands.
    pub verification: &'a Verification,
    /// Base branch and commit.
    pub base: &'a Revision,
    pub branch: &'a str,
    /// Commit of the branch.
    pub oid: &'a str,
    /// Number of commits that the base does not have.
    pub commits: u32,
    pub usage: &'a Usage,
    /// Duration of the run.
    pub minutes: f64,
    /// Notes for reviewers, such as a conflict with the base branch.
    pub notes: &'a [String],
    /// Authors and committers other than the agent.
    pub other_authors: &'a [String],
    /// MCP servers; those that were not connected are listed.
    pub mcp_servers: &'a [McpServer],
}

/// Returns the title of a pull request: `{title} (task {id})`.
#[must_use]
pub fn render_title(title: &str, task: Option<TaskId>) -> String {
    let title = plain(&line(title, MAX_TITLE_CHARS));
    match task {
        Some(task) if title.is_empty() => format!("Task {task}"),
        Some(task) => format!("{title} (task {task})"),
        None if title.is_empty() => "Task documents".to_owned(),
        None => title,
    }
}

/// Returns the body of a pull request: Markdown of at most [`MAX_BODY_CHARS`] characters.
#[must_use]
pub fn render_body(text: &PullRequestText<'_>) -> String {
    let PullRequestText { task, title, description, summary, verification, .. } = *text;
    let mut sections = Vec::new();
    let title = inline(&line(title, MAX_LINE_CHARS));
    let heading = match task {
        Some(task) if title.is_empty() => format!("## Task {task}"),
        Some(task) => format!("## Task {task}: {title}"),
        None => format!("## {title}"),
    };
    sections.push(heading);
    sections.extend(description.map(|text| block(text, MAX_DESCRIPTION_CHARS)));
    if let Some(summary) = summary.map(str::trim).filter(|summary| !summary.is_empty()) {
        sections.push(format!("### Summary\n\n{}", block(summary, MAX_SUMMARY_CHARS)));
    }
    for (heading, entries, max_chars) in [
        ("Acceptance criteria", text.criteria, MAX_LIST_CHARS),
        ("Scope", text.scope, MAX_SHORT_LIST_CHARS),
        ("Technical constraints", text.constraints, MAX_SHORT_LIST_CHARS),
    ] {
        if !entries.is_empty() {
            let list = list_within(entries, MAX_CRITERIA, max_chars);
            sections.push(format!("### {heading}\n\n{list}"));
        }
    }
    sections.push(render_verification(verification));
    let notes = notes(text);
    if !notes.is_empty() {
        sections.push(format!("### Notes\n\n{}", list(&notes, MAX_NOTES)));
    }
    sections.push(render_summary_table(text));
    join_within(&sections, "\n\n", MAX_BODY_CHARS)
}

fn render_verification(verification: &Verification) -> String {
    let Verification { status, commit, commands, kept } = verification;
    let place = place_of_verification(commit.as_deref(), kept);
    let verdict = match status {
        VerificationStatus::NotConfigured => "Not verified: the service has no verify commands.".to_owned(),
        VerificationStatus::NotRun => "Not verified.".to_owned(),
        VerificationStatus::Passed => format!("All commands succeeded{place}."),
        VerificationStatus::Failed => format!("**A command failed**{place}."),
    };
    let mut parts = vec![format!("### Verification\n\n{verdict}\n")];
    parts.extend(commands.iter().take(MAX_COMMANDS).map(render_command));
    join_within(&parts, "\n", MAX_VERIFICATION_CHARS)
}

/// Returns which commit was verified, and what the sandbox had beside it.
fn place_of_verification(commit: Option<&str>, kept: &[String]) -> String {
    let Some(commit) = commit else { return String::new() };
    let short: String = commit.chars().take(12).collect();
    let kept: Vec<String> =
        kept.iter().take(MAX_KEPT).map(|name| code(&line(name, MAX_LINE_CHARS))).collect();
    let kept = match kept.as_slice() {
        [] => String::new(),
        names => format!(", with {} kept from an earlier verification", names.join(", ")),
    };
    format!(" on {} in a fresh sandbox{kept}", code(&short))
}

fn render_command(report: &CommandResult) -> String {
    let CommandResult { command, exit_code, seconds, output } = report;
    let end = match exit_code {
        Some(0) => "succeeded".to_owned(),
        Some(code) => format!("failed with exit code {code}"),
        None => "was terminated by a signal or a timeout".to_owned(),
    };
    let mut text = format!("- {} {end} after {seconds:.0} s", code(&line(command, MAX_LINE_CHARS)));
    let output = output.trim();
    if !output.is_empty() {
        let skipped = output.chars().count().saturating_sub(MAX_OUTPUT_CHARS);
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
        notes.push(format!("The branch has commits by other authors: {}", text.other_authors.join(", ")));
    }
    for server in text.mcp_servers {
        let McpServer { name, status, server: _, tools: _, note } = server;
        let state = match status {
            McpStatus::Connected => continue,
            McpStatus::Skipped => "was skipped",
            McpStatus::Failed => "failed",
        };
        let reason = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        notes.push(format!("MCP server {name} {state}{reason}"));
    }
    notes
}

fn render_summary_table(text: &PullRequestText<'_>) -> String {
    let PullRequestText { run, base, branch, oid, commits, usage, minutes, .. } = *text;
    let short = |oid: &str| code(&oid.chars().take(12).collect::<String>());
    let plural = if commits == 1 { "" } else { "s" };
    let rows = [
        ("Run", code(run.as_str())),
        ("Base", format!("{} at {}", code(&line(&base.branch, MAX_LINE_CHARS)), short(&base.oid))),
        (
            "Branch",
            format!("{} at {}, {commits} commit{plural}", code(&line(branch, MAX_LINE_CHARS)), short(oid)),
        ),
        ("Usage", figures::usage(minutes * 60.0, usage.turns, usage.cost_usd)),
    ];
    let rows = rows.map(|(name, value)| format!("| {name} | {} |", value.replace('|', "\\|")));
    format!("| | |\n|---|---|\n{}", rows.join("\n"))
}

/// Failed attempt, for a comment on the pull request of an earlier one.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    pub run: &'a RunName,
    pub reason: Reason,
    /// Cause of the failure.
    pub message: &'a str,
    /// Location of its work.
    pub work: &'a Work,
    pub usage: &'a Usage,
}

/// Returns the comment about a failed attempt.
#[must_use]
pub fn render_failed_attempt(attempt: &FailedAttempt<'_>) -> String {
    let FailedAttempt { run, reason, message, work, usage } = *attempt;
    let location = match (&work.branch, &work.oid) {
        (Some(branch), Some(oid)) => {
            let short: String = oid.chars().take(12).collect();
            format!("The work is on {} at {}.", code(&line(branch, MAX_LINE_CHARS)), code(&short))
        }
        (Some(branch), None) => format!("The work is on {}.", code(&line(branch, MAX_LINE_CHARS))),
        (None, _) if work.path.is_some() => "The work is in the workspace.".to_owned(),
        (None, _) => "There is no work.".to_owned(),
    };
    let end = if reason == Reason::Stopped { "was stopped" } else { "failed" };
    format!(
        "**Run {} {end}: {reason}**\n\n{}\n\n{location} Usage: {}, {}.",
        code(run.as_str()),
        inline(&line(message, 2_000)),
        figures::turns(usage.turns),
        figures::cost(usage.cost_usd)
    )
}

/// Returns the message of a commit: `{service}: task {id}: {title}`, and trailers.
#[must_use]
pub fn render_commit_message(
    service: &ServiceName,
    task: Option<TaskId>,
    title: &str,
    run: &RunName,
) -> String {
    let title = plain(&line(title, MAX_TITLE_CHARS));
    let task_part = task.map(|task| format!("task {task}"));
    let mut parts = vec![service.to_string()];
    parts.extend(task_part);
    if !title.is_empty() {
        parts.push(title);
    } else if task.is_none() {
        parts.push("task documents".to_owned());
    }
    let subject = line(&parts.join(": "), MAX_SUBJECT_CHARS);
    let trailer = task.map(|task| format!("Task: {task}\n")).unwrap_or_default();
    format!("{subject}\n\n{trailer}Run: {run}\n")
}

#[cfg(test)]
mod tests;
