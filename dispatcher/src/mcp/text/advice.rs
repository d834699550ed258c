//! Advice for MCP clients.

use orchestrator_contract::Reason;

use crate::error::Error;
use crate::task::advice::{Advice, join_names};

/// Renders advice with tools and arguments.
#[must_use]
pub fn render_for_mcp(advice: &Advice) -> String {
    match advice {
        Advice::Resolve(reason) => resolve_hint(*reason),
        Advice::Follow(run) => format!("Follow the log: call `get_task_logs` with run \"{run}\"."),
        Advice::WaitForWorkspace(run) => {
            format!("The run is queued; wait for it: call `wait_for_task` with run \"{run}\".")
        }
        Advice::Retry { run, reason } => format!(
            "{} Call `submit_implementation_task` with retry: true, run \"{run}\".",
            resolve_hint(*reason)
        ),
        Advice::RetryWithGuidance { run, reason } => format!(
            "{} Call `submit_implementation_task` with retry: true, run \"{run}\", guidance.",
            resolve_hint(*reason)
        ),
        Advice::WaitOrStop(run) => format!(
            "Wait for it (`wait_for_task` with run \"{run}\") or stop it (`stop_task` with run \"{run}\"), \
             then retry."
        ),
        Advice::RetryOrStartFresh => {
            "Pass retry: true to continue on the same branch and session, or fresh: \
                                      true to start over on a new branch."
                .to_owned()
        }
        Advice::SubmitFirstAttempt => {
            "Submit without `retry`; service, agent and task must match the earlier attempt.".to_owned()
        }
        Advice::SubmitTask => {
            "Submit a task: call `submit_implementation_task` with task_id, service.".to_owned()
        }
        Advice::ListRuns { newest } if newest.is_empty() => "List runs with `list_tasks`.".to_owned(),
        Advice::ListRuns { newest } => match newest.as_slice() {
            [only] => format!("The newest run is {only}. List all with `list_tasks`."),
            newest => format!("The newest runs are {}. List all with `list_tasks`.", join_names(newest)),
        },
        Advice::DidYouMean { name, otherwise } => {
            format!("Did you mean `{name}`? {}", render_for_mcp(otherwise))
        }
        Advice::SelectRun => "Use a run name from `list_tasks`, or `current`, `latest`, a task such as \
                              `task 3`, or the name of a service that has runs."
            .to_owned(),
        Advice::ShowStatus(run) => {
            format!("Show its status: call `get_task_status` with run \"{run}\".")
        }
        Advice::CheckOut(run) => {
            format!("On the command line, `dispatcher checkout {run}` checks out its branch.")
        }
        Advice::ReadLog(run) => format!("Read the log: call `get_task_logs` with run \"{run}\"."),
        Advice::SetService => "Set the service with `service`.".to_owned(),
        Advice::SetRepositoryUrl => "Set it with `repository_url`.".to_owned(),
        Advice::SetPlatformRepositoryUrl => {
            "Set it with `platform_repository_url`, or work in a clone of the platform repository.".to_owned()
        }
        Advice::Text(text) => text.clone().into_owned(),
    }
}

/// Renders an error: its message, and its hint on a line of its own.
#[must_use]
pub fn render_error(error: &Error) -> String {
    format!("{error}\nhint: {}", render_for_mcp(error.hint()))
}

/// Returns a reason's hint with the command that helps; no tool does.
fn resolve_hint(reason: Reason) -> String {
    let hint = reason.hint();
    if reason == Reason::DiskFull {
        format!(
            "{hint} On the command line, `dispatcher gc --workspaces` lists the workspaces and can remove them; \
             `dispatcher gc` removes the records of old runs."
        )
    } else {
        hint.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::advice::tests::{samples, without_reason_hints};

    #[test]
    fn advice_for_mcp_names_tools_with_arguments() {
        let lines: Vec<String> = samples().iter().map(render_for_mcp).collect();
        insta::assert_snapshot!(without_reason_hints(&lines.join("\n")));
    }

    #[test]
    fn error_hint_is_on_own_line() {
        let error = Error::invalid_request("no runs").with_hint(Advice::SubmitTask);
        insta::assert_snapshot!(render_error(&error), @r"
        no runs
        hint: Submit a task: call `submit_implementation_task` with task_id, service.
        ");
    }
}
