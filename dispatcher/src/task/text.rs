//! Statuses and events as text for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use orchestrator_contract::event::Level;
use orchestrator_contract::outcome::{DocsResult, DocsStatus, Outcome, Sandbox, SandboxKind, WorkLocation};
use orchestrator_contract::{Event, Phase, figures, terminal};

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

pub(super) fn colorize(text: &str, code: &str, color: ColorChoice) -> String {
    match color {
        ColorChoice::Yes => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        ColorChoice::No => text.to_owned(),
    }
}

pub(super) fn paint_phase(phase: Phase, text: &str, color: ColorChoice) -> String {
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

/// Renders the progress of a run in one line.
#[must_use]
pub fn render_progress(status: &Status) -> String {
    let mut parts = vec![status.phase.to_string()];
    parts.extend(status.step.map(|step| step.to_string()));
    if status.turns > 0 {
        parts.push(format!("{}, {}", figures::turns(status.turns), figures::cost(status.cost_usd)));
    }
    match (&status.waiting_for, &status.activity) {
        (Some(waiting_for), _) => parts.push(sanitize(&format!("waiting for {waiting_for}"))),
        (None, Some(activity)) => parts.push(sanitize(activity)),
        (None, None) => {}
    }
    parts.join(" | ")
}

/// Renders what a run does now, or how it ended, in one line that starts with its name.
#[must_use]
pub fn render_change(status: &Status) -> String {
    match (status.reason, status.cause()) {
        (Some(reason), Some(cause)) => {
            format!("{} | {} ({reason}) | {}", status.run, status.phase, sanitize(cause))
        }
        (Some(reason), None) => format!("{} | {} ({reason})", status.run, status.phase),
        (None, _) => format!("{} | {}", status.run, render_progress(status)),
    }
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
        used          6 min 30 s, 3 turns, $0.12
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
        used          5 min 30 s, 14 turns, $0.42
        branch        feature/task-1-implementation
        pull request  https://github.com/myorg/trader/pull/7
        message       pull request #7 is open.
        next          Review the pull request.
        ");
    }

    #[test]
    fn progress_renders_as_one_line() {
        insta::assert_snapshot!(render_progress(&sample(3, LockState::Held)), @"Running | agent | 3 turns, $0.12 | edits src/lib.rs");
    }

    #[test]
    fn change_of_run_renders_as_one_line() {
        insta::assert_snapshot!(render_change(&sample(3, LockState::Held)), @"trader-claude-agent-1-task1-attempt2 | Running | agent | 3 turns, $0.12 | edits src/lib.rs");
        insta::assert_snapshot!(render_change(&sample(5, LockState::Free)), @"trader-claude-agent-1-task1-attempt2 | Succeeded (Completed) | pull request #7 is open.");
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
