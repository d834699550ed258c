//! Result of a submission: what was started, what the run will do, and how to follow it.

use std::fmt::Write as _;

use orchestrator_contract::names::{fresh_branch, implementation_branch};
use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{Kind, Phase, TaskSpec, figures};

use super::markdown::{Fields, short};
use crate::operations::{Submission, SubmitOutcome};
use crate::task::plan::{default_directory, docs_plan};
use crate::task::status::Status;
use crate::task::text::sanitize;

/// Maximum characters of the repeated guidance.
const GUIDANCE_MAX_CHARS: usize = 1_000;

/// Runs before the submission.
#[derive(Clone, Debug, Default)]
pub struct PriorRuns {
    /// Newest run of the service.
    pub last: Option<Status>,
    /// Finished attempt that is retried.
    pub earlier: Option<Status>,
}

/// Renders the result of a submission.
#[must_use]
pub fn render_submission(submission: &Submission, prior: &PriorRuns) -> String {
    let Submission { result, run, task, status, warnings, native_command, continues: _ } = submission;
    let mut text = headline(submission);
    text.push_str("\n\n");
    text.push_str(&details(task));
    let has_failed = status.phase == Phase::Failed;
    if *result == SubmitOutcome::Created && !has_failed {
        text.push('\n');
        text.push_str(&describe_relation(task, prior, status));
        text.push_str("\nThe run will:\n");
        text.push_str(&plan(task, prior));
    }
    for warning in warnings {
        let _ = writeln!(text, "\nWarning: {}", sanitize(warning));
    }
    let head = if has_failed { "For details" } else { "The run continues in the background. To follow it" };
    let _ = writeln!(
        text,
        "\n{head}: `get_task_status`, `wait_for_task`, `get_task_logs` or `stop_task` with run \"{run}\"; on the \
         command line: `dispatcher status {run}`, `dispatcher logs -f {run}`{}.",
        native_command.as_ref().map_or(String::new(), |command| format!(", `{command}`"))
    );
    text
}

fn headline(submission: &Submission) -> String {
    let Submission { result, run, task, status, .. } = submission;
    let number = task.task_id.map_or("all tasks".to_owned(), |task| format!("task {task}"));
    let documents = if task.kind == Kind::Docs { "documents of " } else { "" };
    let subject = format!("{documents}{number} of the {} service", task.service);
    match (result, task.mode) {
        (SubmitOutcome::AlreadyRunning, _) => {
            format!(
                "**Nothing new was started: `{run}` is already active with the same options ({}).**",
                status.phase
            )
        }
        (SubmitOutcome::ConflictingRun, _) => format!(
            "**Nothing new was started: `{run}` is already active for this task with other options ({}).** This \
             submission does not change it. To apply it, stop the run with `stop_task` and submit again with \
             retry: true and guidance.",
            status.phase
        ),
        (SubmitOutcome::Created, _) if status.phase == Phase::Failed => format!(
            "**Submitted {subject}, but the run failed immediately: {}**",
            sanitize(status.cause().unwrap_or("no cause reported"))
        ),
        (SubmitOutcome::Created, _) if task.kind == Kind::Docs && task.mode != Mode::Retry => {
            format!("**Documentation submitted: {subject}.**")
        }
        (SubmitOutcome::Created, Mode::First) => format!("**Implementation submitted: {subject}.**"),
        (SubmitOutcome::Created, Mode::Retry) => {
            format!("**Retry submitted: {subject}, attempt {}.**", task.attempt)
        }
        (SubmitOutcome::Created, Mode::Fresh) => {
            format!("**Started over: {subject}, attempt {}.**", task.attempt)
        }
    }
}

fn details(task: &TaskSpec) -> String {
    let mut fields = Fields::default();
    let number = task.task_id.map_or("all".to_owned(), |task| task.to_string());
    fields.add("Task", &format!("{number} ({} service)", task.service));
    let account = match &task.github_user {
        Some(user) if user != task.agent.as_str() => format!(" (GitHub account {})", sanitize(user)),
        Some(_) | None => String::new(),
    };
    fields.add("Agent", &format!("{}{account}", task.agent));
    if task.kind == Kind::Docs {
        fields.add("Repository", &documents(task));
        fields.add("Model", &sanitize(&task.model));
        fields.add("Base branch", &base(task));
        fields.add("Limits", &limits(task));
        fields.add("TaskRun", &format!("`{}`", task.run));
        return fields.into_text();
    }
    fields.add("Target repository", task.target.url.as_str());
    fields.add("Task documents", &documents(task));
    fields.add("Model", &sanitize(&task.model));
    let directory = match &task.target.working_directory {
        Some(directory) if directory.relative().is_empty() => {
            "the repository's root (as requested)".to_owned()
        }
        Some(directory) => format!("`{}/` (as requested; created if missing)", directory.relative()),
        None => default_directory(task),
    };
    fields.add("Working directory", &directory);
    fields.add("Base branch", &base(task));
    fields.add("Limits", &limits(task));
    fields.add("TaskRun", &format!("`{}`", task.run));
    fields.into_text()
}

fn limits(task: &TaskSpec) -> String {
    let mut limits = vec![figures::duration(task.limits.timeout_minutes * 60.0)];
    limits.extend(task.limits.cost_usd.map(figures::cost));
    limits.extend(task.limits.turns.map(figures::turns));
    let wait = task.limits.wait_for_quota_minutes;
    limits.extend(
        (wait > 0.0).then(|| {
            format!("waits up to {} for a usage limit of the model", figures::duration(wait * 60.0))
        }),
    );
    limits.join(", ")
}

fn documents(task: &TaskSpec) -> String {
    let mut text = task.platform.url.to_string();
    if let Some(directory) = &task.platform.docs_directory {
        let _ = write!(text, ", directory `{}`", directory.relative());
    }
    if let Some(branch) = &task.platform.branch {
        let _ = write!(text, ", branch `{branch}`");
    }
    text
}

fn base(task: &TaskSpec) -> String {
    task.target.base.as_ref().map_or("the repository's default".to_owned(), |base| format!("`{base}`"))
}

/// Renders what the run keeps of earlier runs, and what it creates.
fn describe_relation(task: &TaskSpec, prior: &PriorRuns, status: &Status) -> String {
    let mut fields = Fields::default();
    match (task.kind, task.mode) {
        (Kind::Docs, _) => add_docs_relation(&mut fields, task),
        (Kind::Implementation, Mode::Retry) => add_retry_relation(&mut fields, task, prior),
        (Kind::Implementation, Mode::Fresh) => fields.add(
            "Fresh start",
            &format!(
                "branch `{}` from {}, a new session, a new pull request; the earlier branch is not changed",
                new_branch(task),
                base(task)
            ),
        ),
        (Kind::Implementation, Mode::First) => add_first_relation(&mut fields, task, prior),
    }
    if let Some(guidance) = &task.guidance {
        fields.add("Added guidance", &format!("\"{}\"", short(guidance, GUIDANCE_MAX_CHARS)));
    } else if task.kind == Kind::Implementation && task.mode == Mode::Retry {
        fields.add("Guidance", "none: without guidance, the agent may repeat its approach");
    }
    if let Some(holder) = &status.waiting_for {
        fields.add(
            "Waiting for",
            &format!("`{}`, which holds the workspace; the run starts after it", sanitize(holder)),
        );
    }
    fields.into_text()
}

fn add_retry_relation(fields: &mut Fields, task: &TaskSpec, prior: &PriorRuns) {
    let branch = prior.earlier.as_ref().and_then(|earlier| earlier.branch.clone());
    let branch = sanitize(&branch.unwrap_or_else(|| new_branch(task)));
    let earlier = prior.earlier.as_ref().map_or("earlier attempts".to_owned(), |earlier| {
        let reason = earlier.reason.map_or(String::new(), |reason| format!(", {reason}"));
        format!("`{}` ({}{reason})", earlier.run, earlier.phase)
    });
    fields.add(
        "Preserved",
        &format!(
            "the same branch `{branch}` with all work of {earlier}, committed or not; the session resumes where \
             it ended"
        ),
    );
}

fn add_first_relation(fields: &mut Fields, task: &TaskSpec, prior: &PriorRuns) {
    let workspace = format!("`workspace-{}`", task.service);
    match &prior.last {
        None => fields.add(
            "New service",
            &format!(
                "its own workspace, {workspace}, with a fresh clone; the work of other services is not changed"
            ),
        ),
        Some(last) => {
            let last = last.task_id.map_or("the earlier run".to_owned(), |id| format!("task {id}"));
            fields.add(
                "Cleanup",
                &format!(
                    "{workspace} and its clone are reused and updated; leftovers of {last} are saved, then \
                     removed"
                ),
            );
        }
    }
    fields.add("Branch", &format!("`{}`, fresh from {}", new_branch(task), base(task)));
}

/// Returns the feature branch of a task, unless an earlier attempt has another.
fn new_branch(task: &TaskSpec) -> String {
    task.task_id.map_or(String::new(), |id| match task.mode {
        Mode::First | Mode::Retry => implementation_branch(id).to_string(),
        Mode::Fresh => fresh_branch(id, task.attempt).to_string(),
    })
}

fn add_docs_relation(fields: &mut Fields, task: &TaskSpec) {
    match task.mode {
        Mode::First | Mode::Fresh => fields.add("Branch", "a new one of the platform repository, `docs/...`"),
        Mode::Retry => fields.add(
            "Preserved",
            "the branch and every document that earlier attempts finished; the run writes the missing ones",
        ),
    }
    let existing = if task.docs_options().force {
        "rewritten; the agent sees the old text"
    } else {
        "kept (force: true rewrites them)"
    };
    fields.add("Existing documents", existing);
    fields.add("Your checkout", "not modified: nothing in it is committed, moved or pushed");
}

fn plan(task: &TaskSpec, prior: &PriorRuns) -> String {
    if task.kind == Kind::Docs {
        return docs_plan(task)
            .iter()
            .zip(1..)
            .map(|(step, at)| format!("{at}. {}\n", capitalize(step)))
            .collect();
    }
    let number = task.task_id.map_or("all tasks".to_owned(), |number| format!("task {number}"));
    let servers = match &task.mcp_servers {
        Some(servers) if servers.is_empty() => "no MCP servers".to_owned(),
        Some(servers) => format!("the MCP servers {}", servers.join(", ")),
        None => "the default MCP servers (rustdocs, brave, memory; those that are set up)".to_owned(),
    };
    let verify = match task.verify.as_slice() {
        [] => "Commit, without verification: the service has no `verify` commands".to_owned(),
        commands => format!("Commit, and verify the commit with `{}`", commands.join("`, `")),
    };
    let earlier = prior.earlier.as_ref().filter(|_| task.mode == Mode::Retry);
    let has_pull_request = earlier.is_some_and(|earlier| earlier.pull_request.is_some());
    let model = sanitize(&task.model);
    let (checkout, agent) = match earlier {
        Some(earlier) => (
            format!(
                "Update {} and check out the branch with all work of attempt {}",
                task.target.url.name(),
                earlier.attempt
            ),
            format!("Resume the session of {} with the model {model}", task.agent),
        ),
        None => (
            format!("Clone or update {} and check out the branch", task.target.url.name()),
            format!("Run {} with the model {model}", task.agent),
        ),
    };
    let publish = match task.pull_request {
        PullRequestPolicy::Create if has_pull_request => "Push the branch and update its pull request",
        PullRequestPolicy::Create => "Push the branch and open a pull request",
        PullRequestPolicy::None => "Push the branch, without a pull request",
    };
    let steps = [
        format!("Read the documents of {number} from the platform repository"),
        checkout,
        format!("Start {servers}"),
        agent,
        verify,
        publish.to_owned(),
    ];
    steps.iter().enumerate().map(|(at, step)| format!("{}. {step}\n", at + 1)).collect()
}

fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

#[cfg(test)]
mod tests;
