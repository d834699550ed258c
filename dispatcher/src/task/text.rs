//! Statuses and events as text for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use orchestrator_contract::event::Level;
use orchestrator_contract::outcome::{DocsResult, DocsStatus, Outcome, Sandbox, SandboxKind, WorkLocation};
use orchestrator_contract::task::{DocsOptions, PullRequestPolicy};
use orchestrator_contract::{Event, Kind, Phase, TaskSpec, terminal};

use super::advice::render_for_cli;
use super::status::Status;

/// Whether to color text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColorChoice {
    Yes,
    No,
}

/// Replaces what text from an agent or server could deceive a terminal or a reader with.
///
/// Escape sequences could move the cursor or set the terminal's title.
#[must_use]
pub fn sanitize(text: &str) -> String {
    terminal::neutralize(text)
}

fn colorize(text: &str, code: &str, color: ColorChoice) -> String {
    match color {
        ColorChoice::Yes => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        ColorChoice::No => text.to_owned(),
    }
}

fn paint_phase(phase: Phase, text: &str, color: ColorChoice) -> String {
    let code = match phase {
        Phase::Pending => "2",
        Phase::Preparing | Phase::Running | Phase::Publishing => "36",
        Phase::Succeeded => "32",
        Phase::Failed => "31",
        Phase::Stopped => "33",
    };
    colorize(text, code, color)
}

/// Formats the time of day in UTC, as in the events.
fn format_time(time: Timestamp) -> String {
    time.strftime("%H:%M:%S").to_string()
}

/// Renders an event as a log line; returns `None` for events without a message of their own.
#[must_use]
pub fn render_event(event: &Event, color: ColorChoice) -> Option<String> {
    let readable = event.log_line()?;
    let text = sanitize(readable.text);
    let text = match readable.level {
        Level::Debug | Level::Info => text,
        Level::Warn => colorize(&format!("warning: {text}"), "33", color),
        Level::Error => colorize(&format!("error: {text}"), "31", color),
    };
    let time = colorize(&format_time(event.time), "2", color);
    Some(format!("{time} {:<14} {text}", sanitize(readable.source)))
}

/// Renders a run's status, one field a line.
#[must_use]
pub fn render_status(status: &Status, now: Timestamp, color: ColorChoice) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let name = colorize(&format!("{name:<13}"), "2", color);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} {value}");
    };
    field("run", status.run.as_str());
    let mut task = status.task_id.map_or("all tasks".to_owned(), |task| format!("task {task}"));
    if let Some(title) = &status.task_title {
        task = format!("{task}: {}", sanitize(title));
    }
    field("task", &format!("{task} ({}, attempt {})", status.service, status.attempt));
    let mut phase = paint_phase(status.phase, status.phase.name(), color);
    match (status.reason, status.step) {
        (Some(reason), Some(step)) if status.phase != Phase::Succeeded => {
            phase = format!("{phase} ({reason}) in step {step}");
        }
        (Some(reason), _) => phase = format!("{phase} ({reason})"),
        (None, Some(step)) => phase = format!("{phase}, step {step}"),
        (None, None) => {}
    }
    field("phase", &phase);
    if let Some(waiting_for) = &status.waiting_for {
        field("waiting for", &sanitize(waiting_for));
    }
    if let (Some(doing), Some(since)) = (&status.activity, status.activity_since) {
        field("activity", &format!("{} (for {})", sanitize(doing), age(since, now)));
    }
    field("used", &status.usage_text());
    if let Some(branch) = &status.branch {
        field("branch", &sanitize(branch));
    }
    if let Some(directory) = status.outcome.iter().find_map(|outcome| outcome.working_directory.as_ref()) {
        field("directory", &sanitize(directory));
    }
    if let Some(pull_request) = &status.pull_request {
        field("pull request", &sanitize(pull_request));
    }
    if let Some(work) = &status.work {
        match work.location {
            WorkLocation::Remote | WorkLocation::None => {}
            WorkLocation::Workspace => {
                let path = work.path.as_deref().unwrap_or(&status.workspace);
                // The path of a volume exists in the container only.
                let volume = if status.workspace.starts_with('/') {
                    String::new()
                } else {
                    format!(" ({})", status.workspace)
                };
                field("work", &format!("only in the workspace: {}{volume}", sanitize(path)));
            }
        }
    }
    if let Some(cause) = status.cause() {
        field("message", &sanitize(cause));
    }
    if let Some(sandbox) = status.outcome.iter().find_map(|outcome| outcome.sandbox.as_ref()) {
        field("sandbox", &describe_sandbox(sandbox));
    }
    for line in status.outcome.iter().flat_map(|outcome| documented(outcome)) {
        field("documents", &line);
    }
    for note in status.outcome.iter().flat_map(|outcome| &outcome.notes) {
        field("note", &sanitize(note));
    }
    field("next", &render_for_cli(&status.next_step));
    text
}

/// Returns the kind of a run's sandbox, loud if there was none.
#[must_use]
pub fn describe_sandbox(sandbox: &Sandbox) -> String {
    match sandbox.kind {
        SandboxKind::Container | SandboxKind::Namespaces | SandboxKind::Landlock => {
            sandbox.kind.name().to_owned()
        }
        SandboxKind::Off => "OFF: the agent's programs were not confined".to_owned(),
    }
}

/// Renders runs as a table.
#[must_use]
pub fn render_list(statuses: &[Status], now: Timestamp, color: ColorChoice) -> String {
    let header = ["RUN", "TASK", "PHASE", "STEP", "AGE", "TURNS", "COST", "DETAIL"].map(str::to_owned);
    let row = |status: &Status| {
        let task = status.task_id.map_or("all".to_owned(), |task| task.to_string());
        let detail = match (&status.reason, &status.waiting_for, &status.activity) {
            (Some(reason), ..) => reason.to_string(),
            (None, Some(waiting_for), _) => format!("waiting for {waiting_for}"),
            (None, None, Some(activity)) => activity.clone(),
            (None, None, None) => String::new(),
        };
        let detail = status.pull_request.clone().unwrap_or(detail);
        [
            status.run.to_string(),
            task,
            status.phase.to_string(),
            status.step.map_or(String::new(), |step| step.to_string()),
            age(status.submitted_at, now),
            status.turns.to_string(),
            format!("${:.2}", status.cost_usd),
            sanitize(&detail).chars().take(60).collect(),
        ]
    };
    let rows: Vec<[String; 8]> = std::iter::once(header).chain(statuses.iter().map(row)).collect();
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let padded = format!("{cell:<width$}");
                match (number.checked_sub(1).and_then(|index| statuses.get(index)), column) {
                    (Some(status), 2) => paint_phase(status.phase, &padded, color),
                    (None, _) => colorize(&padded, "2", color),
                    (Some(_), _) => padded,
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Renders the progress of a run in one line.
#[must_use]
pub fn render_progress(status: &Status) -> String {
    let mut parts = vec![status.phase.to_string()];
    parts.extend(status.step.map(|step| step.to_string()));
    if status.turns > 0 {
        parts.push(format!("turn {}, ${:.2}", status.turns, status.cost_usd));
    }
    match (&status.waiting_for, &status.activity) {
        (Some(waiting_for), _) => parts.push(sanitize(&format!("waiting for {waiting_for}"))),
        (None, Some(activity)) => parts.push(sanitize(activity)),
        (None, None) => {}
    }
    parts.join(" | ")
}

/// Renders the planned steps of a run, one a line.
#[must_use]
pub fn render_plan(task: &TaskSpec) -> String {
    if task.kind == Kind::Docs {
        return docs_plan(task).iter().zip(1..).map(|(step, at)| format!("  {at}. {step}\n")).collect();
    }
    let directory = task
        .target
        .working_directory
        .as_ref()
        .map_or_else(|| default_directory(task), |directory| format!("in `{directory}`"));
    let base = task.target.base.as_ref().map_or("the default branch".to_owned(), |base| format!("`{base}`"));
    let number = task.task_id.map_or("all tasks".to_owned(), |number| format!("task {number}"));
    let pull_request = match task.pull_request {
        PullRequestPolicy::Create => "push the branch and open a pull request",
        PullRequestPolicy::None => "push the branch, without a pull request",
    };
    let verify = match task.verify.as_slice() {
        [] => "commit, without verification (no `verify` commands)".to_owned(),
        commands => format!("commit, and verify the commit with `{}`", commands.join("`, `")),
    };
    format!(
        "  1. read the documents of {number} from {}\n  2. check out {} from {base}, and work {directory}\n  \
         3. run {} with the model {}\n  4. {verify}\n  5. {pull_request}\n",
        task.platform.url, task.target.url, task.agent, task.model
    )
}

/// Describes the directory of a run whose request names none; the supervisor looks which of the two exists.
#[must_use]
pub fn default_directory(task: &TaskSpec) -> String {
    format!("at the root of {} (in its directory `{}`, if it has one)", task.target.url.path(), task.service)
}

/// Returns the planned steps of a docs run.
#[must_use]
pub fn docs_plan(task: &TaskSpec) -> Vec<String> {
    let base = task.target.base.as_ref().map_or("the default branch".to_owned(), |base| format!("`{base}`"));
    let which = task.task_id.map_or("every task".to_owned(), |task| format!("task {task}"));
    let DocsOptions { force, concurrency } = task.docs_options();
    let existing = if force { "rewriting existing ones" } else { "keeping existing ones" };
    let publish = match task.pull_request {
        PullRequestPolicy::Create => format!("push the branch and open a pull request against {base}"),
        PullRequestPolicy::None => "push the branch, without a pull request".to_owned(),
    };
    let sessions = if task.task_id.is_none() {
        format!(", one session for each task, {concurrency} concurrently")
    } else {
        String::new()
    };
    vec![
        format!("clone {} at {base} and read its tasks", task.platform.url),
        format!(
            "run {} with the model {} to write the documents of {which}{sessions}, {existing}",
            task.agent,
            sanitize(&task.model)
        ),
        "review each document; the agent revises rejected ones once".to_owned(),
        publish,
    ]
}

/// Renders the result of each task's documents with the review findings, one line a task.
#[must_use]
pub fn documented(outcome: &Outcome) -> Vec<String> {
    let line = |result: &DocsResult| {
        let status = match result.status {
            DocsStatus::Written => "written",
            DocsStatus::Unchanged => "unchanged",
            DocsStatus::Failed => "failed",
            DocsStatus::NotWritten => "not written yet",
        };
        let findings = match result.findings.as_slice() {
            [] => String::new(),
            findings => format!(": {}", sanitize(&findings.join("; "))),
        };
        format!("task {} ({}): {status}{findings}", result.task_id, sanitize(&result.title))
    };
    outcome.docs_results.iter().map(line).collect()
}

/// Formats the time since `since` in one or two units, such as `42s` or `1h06m`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        86_400.. => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event_fold::LockState;
    use crate::task::status::tests::sample;

    const EVENTS: &str = include_str!("../../../supervisor/contract/samples/events-v1.jsonl");

    fn now() -> Timestamp {
        "2026-11-22T12:06:00Z".parse().unwrap()
    }

    #[test]
    fn events_render_as_readable_log_lines() {
        let lines: Vec<String> = EVENTS
            .lines()
            .filter_map(|line| render_event(&serde_json::from_str(line).unwrap(), ColorChoice::No))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        12:00:00 agent          edits src/lib.rs
        12:00:01 preflight      done in 0.25 s
        12:05:00 outcome        pull request #7 is open. Review the pull request.
        12:05:00                something new
        ");
    }

    #[test]
    fn control_characters_in_agent_text_are_replaced() {
        assert_eq!(
            sanitize("a\u{1b}]0;evil\u{7}b\r\nc\u{202e}d\u{9b}"),
            "a\u{fffd}]0;evil\u{fffd}b  c\u{fffd}d\u{fffd}"
        );
    }

    #[test]
    fn active_run_status_shows_activity() {
        insta::assert_snapshot!(render_status(&sample(3, LockState::Held), now(), ColorChoice::No), @"
        run           trader-claude-agent-1-task1-attempt2
        task          task 1 (trader, attempt 2)
        phase         Running, step agent
        activity      edits src/lib.rs (for 5m)
        used          6.5 min, 3 turns, $0.12
        branch        feature/task-1-implementation
        next          Follow the log with `dispatcher logs -f trader-claude-agent-1-task1-attempt2`.
        ");
    }

    #[test]
    fn finished_run_status_shows_outcome() {
        insta::assert_snapshot!(render_status(&sample(5, LockState::Free), now(), ColorChoice::No), @"
        run           trader-claude-agent-1-task1-attempt2
        task          task 1: Add the order book (trader, attempt 2)
        phase         Succeeded (Completed)
        used          5.5 min, 14 turns, $0.42
        branch        feature/task-1-implementation
        pull request  https://github.com/myorg/trader/pull/7
        message       pull request #7 is open.
        next          Review the pull request.
        ");
    }

    #[test]
    fn run_list_renders_as_table() {
        let list = [sample(5, LockState::Free), sample(3, LockState::Held), sample(2, LockState::Free)];
        insta::assert_snapshot!(render_list(&list, now(), ColorChoice::No), @"
        RUN                                   TASK  PHASE      STEP       AGE  TURNS  COST   DETAIL
        trader-claude-agent-1-task1-attempt2  1     Succeeded  report     6m   14     $0.42  https://github.com/myorg/trader/pull/7
        trader-claude-agent-1-task1-attempt2  1     Running    agent      6m   3      $0.12  edits src/lib.rs
        trader-claude-agent-1-task1-attempt2  1     Failed     preflight  6m   0      $0.00  SupervisorLost
        ");
    }

    #[test]
    fn progress_renders_as_one_line() {
        insta::assert_snapshot!(render_progress(&sample(3, LockState::Held)), @"Running | agent | turn 3, $0.12 | edits src/lib.rs");
    }

    #[test]
    fn ages_render_in_short_form() {
        for (since, expected) in [
            ("2026-11-22T12:05:18Z", "42s"),
            ("2026-11-22T11:00:00Z", "1h06m"),
            ("2026-11-20T11:00:00Z", "2d1h"),
            ("2026-11-22T13:00:00Z", "0s"),
        ] {
            assert_eq!(age(since.parse().unwrap(), now()), expected);
        }
    }
}
