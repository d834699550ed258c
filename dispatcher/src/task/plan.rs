//! What a new run will do, in steps.

use orchestrator_contract::names::implementation_branch;
use orchestrator_contract::task::{DocsOptions, Mode, PullRequestPolicy};
use orchestrator_contract::{Kind, RunName, TaskSpec};

use super::status::Status;
use super::text::sanitize;

/// Maximum characters of the repeated guidance.
const GUIDANCE_MAX_CHARS: usize = 200;

/// The finished attempt that a retry continues.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Continuation {
    pub run: RunName,
    pub attempt: u32,
    /// Its branch, if it came so far.
    pub branch: Option<String>,
    pub has_pull_request: bool,
}

impl From<&Status> for Continuation {
    fn from(status: &Status) -> Self {
        Self {
            run: status.run.clone(),
            attempt: status.attempt,
            branch: status.branch.clone(),
            has_pull_request: status.pull_request.is_some(),
        }
    }
}

impl Continuation {
    /// Returns the branch that the retry continues.
    #[must_use]
    pub fn branch(&self, task: &TaskSpec) -> Option<String> {
        let default =
            || task.task_id.filter(|_| task.kind == Kind::Implementation).map(implementation_branch);
        self.branch.as_deref().map(sanitize).or_else(|| default().map(|branch| branch.to_string()))
    }

    /// Describes what the retry continues, and with which guidance, in one line.
    fn describe(&self, task: &TaskSpec) -> String {
        let branch = self.branch(task).map(|branch| format!(" on {branch}")).unwrap_or_default();
        let guidance = match &task.guidance {
            Some(guidance) => format!("with guidance \"{}\"", shorten(guidance)),
            None => "without guidance".to_owned(),
        };
        format!("continues attempt {}{branch}, {guidance}", self.attempt)
    }
}

fn shorten(guidance: &str) -> String {
    let text = sanitize(guidance);
    let cut: String = text.chars().take(GUIDANCE_MAX_CHARS).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

/// Renders the planned steps of a run, one a line, after the attempt that it `continues`.
#[must_use]
pub fn render_plan(task: &TaskSpec, continues: Option<&Continuation>) -> String {
    let steps = match task.kind {
        Kind::Docs => docs_plan(task),
        Kind::Implementation => implementation_plan(task, continues),
    };
    let head = continues.map(|earlier| format!("  {}\n", earlier.describe(task))).unwrap_or_default();
    let steps: String = steps.iter().zip(1..).map(|(step, at)| format!("  {at}. {step}\n")).collect();
    head + &steps
}

fn implementation_plan(task: &TaskSpec, continues: Option<&Continuation>) -> Vec<String> {
    let directory = task
        .target
        .working_directory
        .as_ref()
        .map_or_else(|| default_directory(task), |directory| format!("in `{directory}`"));
    let number = task.task_id.map_or("all tasks".to_owned(), |number| format!("task {number}"));
    let documents = format!("read the documents of {number} from {}", task.platform.url);
    let verify = match task.verify.as_slice() {
        [] => "commit, without verification (no `verify` commands)".to_owned(),
        commands => format!("commit, and verify the commit with `{}`", commands.join("`, `")),
    };
    let has_pull_request = continues.is_some_and(|earlier| earlier.has_pull_request);
    let publish = match task.pull_request {
        PullRequestPolicy::Create if has_pull_request => "push the branch and update its pull request",
        PullRequestPolicy::Create => "push the branch and open a pull request",
        PullRequestPolicy::None => "push the branch, without a pull request",
    };
    let (checkout, agent) = match continues.filter(|_| task.mode == Mode::Retry) {
        Some(earlier) => {
            let branch = earlier.branch(task).unwrap_or_default();
            let attempt = earlier.attempt;
            (
                format!("check out `{branch}` with all work of attempt {attempt}, and work {directory}"),
                format!("resume the session of {} with the model {}", task.agent, sanitize(&task.model)),
            )
        }
        None => (
            format!("check out {} from {}, and work {directory}", task.target.url, base(task)),
            format!("run {} with the model {}", task.agent, sanitize(&task.model)),
        ),
    };
    vec![documents, checkout, agent, verify, publish.to_owned()]
}

/// Describes the directory of a run whose request names none; the supervisor looks which of the two exists.
#[must_use]
pub fn default_directory(task: &TaskSpec) -> String {
    format!("at the root of {} (in its directory `{}`, if it has one)", task.target.url.path(), task.service)
}

fn base(task: &TaskSpec) -> String {
    task.target.base.as_ref().map_or("the default branch".to_owned(), |base| format!("`{base}`"))
}

/// Returns the planned steps of a docs run.
#[must_use]
pub fn docs_plan(task: &TaskSpec) -> Vec<String> {
    let base = base(task);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::event_fold::LockState;
    use crate::task::status::tests::sample;

    fn task(mode: Mode) -> TaskSpec {
        let json = include_str!("../../../supervisor/contract/samples/task-v1.json");
        TaskSpec { mode, ..TaskSpec::from_json(json).unwrap() }
    }

    #[test]
    fn plan_of_first_attempt_starts_from_base() {
        let expected = "  1. read the documents of task 1 from https://github.com/myorg/platform
  2. check out git@github.com:myorg/trader.git from `main`, and work in `trading-engine`
  3. run claude-agent-1 with the model sonnet
  4. commit, and verify the commit with `cargo test`
  5. push the branch and open a pull request
";
        assert_eq!(render_plan(&task(Mode::First), None), expected);
    }

    #[test]
    fn plan_of_retry_continues_earlier_attempt() {
        let earlier = Continuation::from(&sample(5, LockState::Free));
        let expected =
            "  continues attempt 2 on feature/task-1-implementation, with guidance \"Use reqwest, not curl.\"
  1. read the documents of task 1 from https://github.com/myorg/platform
  2. check out `feature/task-1-implementation` with all work of attempt 2, and work in `trading-engine`
  3. resume the session of claude-agent-1 with the model sonnet
  4. commit, and verify the commit with `cargo test`
  5. push the branch and update its pull request
";
        assert_eq!(render_plan(&task(Mode::Retry), Some(&earlier)), expected);
        let unknown = Continuation { branch: None, has_pull_request: false, ..earlier };
        let task = TaskSpec { guidance: None, ..task(Mode::Retry) };
        let head = render_plan(&task, Some(&unknown));
        assert_eq!(
            head.lines().next(),
            Some("  continues attempt 2 on feature/task-1-implementation, without guidance")
        );
    }

    #[test]
    fn guidance_cannot_control_terminal_or_fill_screen() {
        let guidance = format!("a\u{1b}[2Jb\nc {}", "word ".repeat(100));
        let task = TaskSpec { guidance: Some(guidance), ..task(Mode::Retry) };
        let earlier = Continuation::from(&sample(5, LockState::Free));
        let text = render_plan(&task, Some(&earlier));
        let head = text.lines().next().unwrap();
        assert!(head.contains("a\u{fffd}[2Jb c word") && head.ends_with("…\""), "{head}");
        assert!(head.chars().count() < 300, "{head}");
    }
}
