//! The tools: a file each, and the table that lists them.
//!
//! Names and descriptions hold the words that people use, because clients
//! search in them.

mod docs;
mod logs;
mod status;
mod stop;
mod submit;
mod wait;

use std::time::Duration;

use orchestrator_contract::Reason;
use rmcp::handler::server::tool::schema_for_output;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::{
    DocsArguments, ListArguments, LogsArguments, RunArguments, StopArguments, SubmitArguments, WaitArguments,
};
use super::outputs::{ListOutput, LogsOutput, StatusOutput, StopOutput, SubmitOutput, WaitOutput};
use super::select::ToolError;
use super::server::Server;
use crate::error::Error;

/// A tool's result: the text that a model reads, and the same as a value.
struct ToolOutput<T> {
    text: String,
    value: T,
}

/// The structured half. Claude Code gives its model nothing else where there is one (2.1.330, measured), so
/// it holds the text as well.
#[derive(JsonSchema, Serialize)]
struct StructuredContent<T> {
    /// The answer in words.
    text: String,
    #[serde(flatten)]
    value: T,
}

/// How long any call may take but a wait: what runs elsewhere may not answer at all, and a client that is told
/// so can do something about it.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Gives up on a call that takes too long. What it has set going goes on.
async fn with_timeout<T>(call: impl Future<Output = Result<ToolOutput<T>, ToolError>>) -> CallToolResult
where
    T: Serialize,
{
    let late = || {
        let seconds = CALL_TIMEOUT.as_secs();
        Error::new(
            Reason::RemoteUnavailable,
            format!("where the runs are kept did not answer within {seconds} s"),
        )
        .with_hint("Try again; look with `list_tasks` before anything is submitted a second time.")
    };
    into_result(tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late().into())))
}

fn into_result<T: Serialize>(result: Result<ToolOutput<T>, ToolError>) -> CallToolResult {
    match result {
        Ok(ToolOutput { text, value }) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(text.clone())]);
            result.structured_content = serde_json::to_value(StructuredContent { text, value }).ok();
            result
        }
        // What a protocol error says is seldom shown; this is.
        Err(refusal) => CallToolResult::error(vec![ContentBlock::text(refusal.message())]),
    }
}

#[tool_router(vis = "pub(super)")]
impl Server {
    #[tool(
        name = "submit_implementation_task",
        title = "Implement or retry a task",
        description = "Start implementing a task of a service with a Claude agent, which ends in a pull request \
            (implement, start, begin, run, work on task 1 of the trader service). Also retry, redo or continue a \
            failed or finished task with better guidance (retry: true, guidance), or start it over (fresh: true). \
            Answers at once with the run's name and what will happen.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = schema_for_output::<StructuredContent<SubmitOutput>>()
    )]
    async fn submit_implementation_task(
        &self,
        Parameters(arguments): Parameters<SubmitArguments>,
    ) -> CallToolResult {
        with_timeout(submit::submit(self, arguments)).await
    }

    #[tool(
        name = "init_docs",
        title = "Write task documentation",
        description = "Generate, create or regenerate the documentation of tasks from Task Master's tasks.json with a \
            Claude agent (task.md, prompt.md, acceptance-criteria.md), for one task or all tasks of a service, which \
            ends in a pull request. Also goes on with a documentation run that ended early (retry: true). Answers at \
            once with the run's name and what will happen.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = schema_for_output::<StructuredContent<SubmitOutput>>()
    )]
    async fn init_docs(&self, Parameters(arguments): Parameters<DocsArguments>) -> CallToolResult {
        with_timeout(docs::init(self, arguments)).await
    }

    #[tool(
        name = "get_task_status",
        title = "Status of a task",
        description = "Check the status and progress of an implementation task: how's it going, is it still running, \
            what is the agent doing now, did it finish or fail and why, cost, turns, branch, pull request, next step. \
            Without arguments: the current task, else the last one.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = schema_for_output::<StructuredContent<StatusOutput>>()
    )]
    async fn get_task_status(&self, Parameters(arguments): Parameters<RunArguments>) -> CallToolResult {
        with_timeout(status::status(self, &arguments)).await
    }

    #[tool(
        name = "list_tasks",
        title = "List tasks",
        description = "List implementation tasks and their runs across services, newest first: an overview, history, \
            what is running, what failed. Filter by service, task or phase.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = schema_for_output::<StructuredContent<ListOutput>>()
    )]
    async fn list_tasks(&self, Parameters(arguments): Parameters<ListArguments>) -> CallToolResult {
        with_timeout(status::list(self, &arguments)).await
    }

    #[tool(
        name = "get_task_logs",
        title = "Logs of a task",
        description = "Read the logs of an implementation task: what the agent did step by step, errors, output, why \
            it failed. The last 100 lines, or by cursor what came after an earlier answer (after). Works while it \
            runs and afterwards.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = schema_for_output::<StructuredContent<LogsOutput>>()
    )]
    async fn get_task_logs(&self, Parameters(arguments): Parameters<LogsArguments>) -> CallToolResult {
        with_timeout(logs::logs(self, &arguments)).await
    }

    #[tool(
        name = "wait_for_task",
        title = "Wait for a task",
        description = "Wait until an implementation task has finished, with progress; watch or follow it to the end. \
            Waits at most 45 seconds, then says that it is still running: call it again to go on waiting.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = schema_for_output::<StructuredContent<WaitOutput>>()
    )]
    async fn wait_for_task(
        &self,
        Parameters(arguments): Parameters<WaitArguments>,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        into_result(wait::wait(self, &arguments, context).await)
    }

    #[tool(
        name = "stop_task",
        title = "Stop a task",
        description = "Stop, cancel or abort a running implementation task. The agent ends, what it made is saved and \
            pushed, and the workspace is kept, so that a retry can go on from there.",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true),
        output_schema = schema_for_output::<StructuredContent<StopOutput>>()
    )]
    async fn stop_task(&self, Parameters(arguments): Parameters<StopArguments>) -> CallToolResult {
        with_timeout(stop::stop(self, &arguments)).await
    }
}
