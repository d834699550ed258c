//! What a submission has started, what will happen, and how to follow it.

use std::fmt::Write as _;

use orchestrator_contract::names::{fresh_branch, implementation_branch};
use orchestrator_contract::task::{Mode, PullRequestPolicy};
use orchestrator_contract::{Kind, Phase, TaskSpec};

use super::{Fields, short};
use crate::operations::{Submission, SubmitOutcome};
use crate::task::status::Status;
use crate::task::text::{docs_plan, sanitize};

/// How much of the guidance is repeated.
const GUIDANCE_MAX: usize = 1_000;

/// What there was before the submission.
#[derive(Clone, Debug, Default)]
pub struct PriorRuns {
    /// The service's newest run.
    pub last: Option<Status>,
    /// The finished attempt that is tried again.
    pub earlier: Option<Status>,
}

/// A submission in full.
#[must_use]
pub fn render_submission(submission: &Submission, before: &PriorRuns) -> String {
    let Submission { result: started, run, task, status, warnings, native_command: elsewhere } = submission;
    let number = task.task_id.map_or("all tasks".to_owned(), |task| format!("task {task}"));
    let documents = if task.kind == Kind::Docs { "documents of " } else { "" };
    let what = format!("{documents}{number} of the {} service", task.service);
    let mut text = match (started, task.mode) {
        (SubmitOutcome::AlreadyRunning, _) => {
            format!("**Nothing new was started: `{run}` is at work on this already ({}).**\n\n", status.phase)
        }
        (SubmitOutcome::ConflictingRun, _) => format!(
            "**Nothing new was started: `{run}` is at work on this task already ({}), as it was submitted.** \
             Nothing of this submission was added to it. To change what it does, stop it with `stop_task` and \
             submit again with retry: true and guidance.\n\n",
            status.phase
        ),
        (SubmitOutcome::Created, _) if status.phase == Phase::Failed => format!(
            "**Submitted {what}, which has failed at once: {}**\n\n",
            sanitize(status.message.as_deref().unwrap_or("it did not say why"))
        ),
        (SubmitOutcome::Created, _) if task.kind == Kind::Docs && task.mode != Mode::Retry => {
            format!("**Documentation submitted: {what}.**\n\n")
        }
        (SubmitOutcome::Created, Mode::First) => format!("**Implementation submitted: {what}.**\n\n"),
        (SubmitOutcome::Created, Mode::Retry) => {
            format!("**Retry submitted: {what}, attempt {}.**\n\n", task.attempt)
        }
        (SubmitOutcome::Created, Mode::Fresh) => {
            format!("**Started over: {what}, attempt {}.**\n\n", task.attempt)
        }
    };
    text.push_str(&details(task));
    let has_failed = status.phase == Phase::Failed;
    if *started == SubmitOutcome::Created && !has_failed {
        text.push('\n');
        text.push_str(&describe_relation(task, before, status));
        text.push_str("\nThe run will:\n");
        text.push_str(&plan(task));
    }
    for warning in warnings {
        let _ = writeln!(text, "\nWarning: {}", sanitize(warning));
    }
    let head = if has_failed { "For more" } else { "It goes on by itself. To follow it" };
    let _ = writeln!(
        text,
        "\n{head}: `get_task_status`, `wait_for_task`, `get_task_logs` or `stop_task` with run \"{run}\"; on the \
         command line: `dispatcher status {run}`, `dispatcher logs -f {run}`{}.",
        elsewhere.as_ref().map_or(String::new(), |command| format!(", `{command}`"))
    );
    text
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
        fields.add("Branch that is read", &base(task));
        fields.add("Limits", &limits(task));
        fields.add("TaskRun", &format!("`{}`", task.run));
        return fields.0;
    }
    fields.add("Target repository", task.target.url.as_str());
    fields.add("Task documents", &documents(task));
    fields.add("Model", &sanitize(&task.model));
    let directory = match &task.target.working_directory {
        Some(directory) if directory.relative().is_empty() => "the repository's root (as asked)".to_owned(),
        Some(directory) => format!("`{}/` (as asked; made if it is not there)", directory.relative()),
        None => format!(
            "`{}/` (default; the repository's root if it is the service's own and has no such folder)",
            task.service
        ),
    };
    fields.add("Working directory", &directory);
    fields.add("Base branch", &base(task));
    fields.add("Limits", &limits(task));
    fields.add("TaskRun", &format!("`{}`", task.run));
    fields.0
}

fn limits(task: &TaskSpec) -> String {
    let mut limits = vec![format!("{} minutes", task.limits.timeout_minutes)];
    limits.extend(task.limits.cost_usd.map(|cost| format!("${cost:.2}")));
    limits.extend(task.limits.turns.map(|turns| format!("{turns} turns")));
    limits.join(", ")
}

fn documents(task: &TaskSpec) -> String {
    let mut text = task.platform.url.to_string();
    if let Some(directory) = &task.platform.docs_directory {
        let _ = write!(text, ", folder `{}`", directory.relative());
    }
    if let Some(branch) = &task.platform.branch {
        let _ = write!(text, ", branch `{branch}`");
    }
    text
}

fn base(task: &TaskSpec) -> String {
    task.target.base.as_ref().map_or("the repository's default".to_owned(), |base| format!("`{base}`"))
}

/// How the run relates to what was before it.
fn describe_relation(task: &TaskSpec, before: &PriorRuns, status: &Status) -> String {
    let mut fields = Fields::default();
    if task.kind == Kind::Docs {
        return docs_relation(task, status);
    }
    let new_branch = task.task_id.map(|id| match task.mode {
        Mode::First | Mode::Retry => implementation_branch(id).to_string(),
        Mode::Fresh => fresh_branch(id, task.attempt).to_string(),
    });
    let new_branch = new_branch.unwrap_or_default();
    match task.mode {
        Mode::Retry => {
            let kept = before.earlier.as_ref().and_then(|earlier| earlier.branch.clone());
            let branch = sanitize(&kept.unwrap_or(new_branch));
            let from = before.earlier.as_ref().map_or("earlier attempts".to_owned(), |earlier| {
                let reason = earlier.reason.map_or(String::new(), |reason| format!(", {reason}"));
                format!("`{}` ({}{reason})", earlier.run, earlier.phase)
            });
            fields.add(
                "Preserved",
                &format!(
                    "the same branch `{branch}` with everything that {from} made, committed or not; the \
                     conversation goes on where it ended"
                ),
            );
        }
        Mode::Fresh => {
            fields.add(
                "Fresh start",
                &format!(
                    "branch `{new_branch}` from {}, a new conversation, a new pull request; the earlier branch \
                     stays as it is",
                    base(task)
                ),
            );
        }
        Mode::First => {
            let workspace = format!("`workspace-{}`", task.service);
            match &before.last {
                None => fields.add(
                    "New service",
                    &format!(
                        "a workspace of its own, {workspace}, with a fresh clone; no other service's work is \
                         touched"
                    ),
                ),
                Some(last) => {
                    let last = last.task_id.map_or("the run before".to_owned(), |id| format!("task {id}"));
                    fields.add(
                        "Cleanup",
                        &format!(
                            "{workspace} and its clone are used again and updated; what {last} left there is \
                             saved, then cleaned away"
                        ),
                    );
                }
            }
            fields.add("Branch", &format!("`{new_branch}`, fresh from {}", base(task)));
        }
    }
    if let Some(guidance) = &task.guidance {
        let guidance = short(guidance, GUIDANCE_MAX);
        fields.add("Added guidance", &format!("\"{guidance}\""));
    } else if task.mode == Mode::Retry {
        fields.add("Guidance", "none: without any, the agent may do the same again");
    }
    if let Some(holder) = &status.waiting_for {
        fields.add(
            "Waits for",
            &format!("`{}`, which has the workspace; it starts after that", sanitize(holder)),
        );
    }
    fields.0
}

/// How a docs run relates to what was before it.
fn docs_relation(task: &TaskSpec, status: &Status) -> String {
    let mut fields = Fields::default();
    match task.mode {
        Mode::First | Mode::Fresh => fields.add("Branch", "a new one of the platform repository, `docs/...`"),
        Mode::Retry => fields.add(
            "Preserved",
            "the branch and every document that earlier attempts finished; what is missing is written",
        ),
    }
    let there = if task.docs_options().force {
        "written anew; the agent gets the old text as its starting point"
    } else {
        "left alone (force: true writes them anew)"
    };
    fields.add("Documents that are there", there);
    fields.add("Your checkout", "only looked at: nothing in it is committed, moved or pushed");
    if let Some(guidance) = &task.guidance {
        fields.add("Added guidance", &format!("\"{}\"", short(guidance, GUIDANCE_MAX)));
    }
    if let Some(holder) = &status.waiting_for {
        fields.add(
            "Waits for",
            &format!("`{}`, which has the workspace; it starts after that", sanitize(holder)),
        );
    }
    fields.0
}

fn plan(task: &TaskSpec) -> String {
    if task.kind == Kind::Docs {
        return docs_plan(task)
            .iter()
            .zip(1..)
            .map(|(step, at)| format!("{at}. {}\n", capital(step)))
            .collect();
    }
    let number = task.task_id.map_or("all tasks".to_owned(), |number| format!("task {number}"));
    let servers = match &task.mcp_servers {
        Some(servers) if servers.is_empty() => "no MCP servers".to_owned(),
        Some(servers) => format!("the MCP servers {}", servers.join(", ")),
        None => "its MCP servers (rustdocs, brave, memory, as far as they are set up)".to_owned(),
    };
    let verify = match task.verify.as_slice() {
        [] => "Check nothing further: there are no `verify` commands for this service".to_owned(),
        commands => format!("Verify with `{}`", commands.join("`, `")),
    };
    let publish = match task.pull_request {
        PullRequestPolicy::Create => "Commit, push the branch and open the pull request",
        PullRequestPolicy::None => "Commit and push the branch, without a pull request",
    };
    let steps = [
        format!("Read the documents of {number} from the platform repository"),
        format!("Clone or update {} and prepare the branch", task.target.url.name()),
        format!("Start {servers}"),
        format!("Have {} do the work with {}", task.agent, sanitize(&task.model)),
        verify,
        publish.to_owned(),
    ];
    steps.iter().enumerate().map(|(at, step)| format!("{}. {step}\n", at + 1)).collect()
}

#[cfg(test)]
mod tests;

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}
