//! The tools, one file each, and the router that describes them.
//!
//! Names and descriptions contain the words that users say, because clients
//! search in them.

mod diff;
mod docs;
mod logs;
mod output;
mod status;
mod stop;
mod submit;
mod wait;

use rmcp::model::CallToolResult;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};

use self::diff::DiffArguments;
use self::output::{into_result, output_schema, with_timeout};
use super::arguments::{
    DocsArguments, ListArguments, LogsArguments, RunArguments, StopArguments, SubmitArguments, WaitArguments,
};
use super::outputs::{
    DiffOutput, ListOutput, LogsOutput, StatusOutput, StopOutput, SubmitOutput, WaitOutput,
};
use super::parameters::Parameters;
use super::server::Server;

#[tool_router(vis = "pub(super)")]
impl Server {
    #[tool(
        name = "submit_implementation_task",
        title = "Implement or retry a task",
        description = "Implement a task of a service with a Claude agent and open a pull request. Also: start implementing, \
            begin, run or work on task 1 of the trader service; retry, redo or continue a failed or finished task \
            with better guidance (retry: true, guidance); start it over (fresh: true). Immediately returns the run's \
            name and its planned steps; the run continues in the background.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = output_schema::<SubmitOutput>()
    )]
    async fn submit_implementation_task(
        &self,
        Parameters(arguments): Parameters<SubmitArguments>,
    ) -> CallToolResult {
        with_timeout(async { submit::submit(self, arguments?).await }).await
    }

    #[tool(
        name = "init_docs",
        title = "Write task documentation",
        description = "Generate the documentation of one task or all tasks of a service from Task Master's tasks.json \
            with a Claude agent (task.md, prompt.md, acceptance-criteria.md), and open a pull request. Also: create \
            docs, write or regenerate documents (force: true). Also resumes an unfinished documentation run (retry: \
            true). Immediately returns the run's name and its planned steps; the run continues in the background.",
        annotations(read_only_hint = false, destructive_hint = false, idempotent_hint = false, open_world_hint = true),
        output_schema = output_schema::<SubmitOutput>()
    )]
    async fn init_docs(&self, Parameters(arguments): Parameters<DocsArguments>) -> CallToolResult {
        with_timeout(async { docs::init(self, arguments?).await }).await
    }

    #[tool(
        name = "get_task_status",
        title = "Status of a task",
        description = "Check the status and progress of an implementation task. Also: how's it going, is it still \
            running, what is the agent doing now, did it finish, why did it fail. Returns phase, activity, cost, \
            turns, branch, pull request and next step. Without arguments: the current task, else the last one.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = output_schema::<StatusOutput>()
    )]
    async fn get_task_status(&self, Parameters(arguments): Parameters<RunArguments>) -> CallToolResult {
        with_timeout(async { status::status(self, &arguments?).await }).await
    }

    #[tool(
        name = "list_tasks",
        title = "List tasks",
        description = "List the runs of implementation tasks across services. Also: overview, history, what is \
            running, what failed. Returns one line per run, newest first; filter by service, task or phase.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = output_schema::<ListOutput>()
    )]
    async fn list_tasks(&self, Parameters(arguments): Parameters<ListArguments>) -> CallToolResult {
        with_timeout(async { status::list(self, &arguments?).await }).await
    }

    #[tool(
        name = "get_task_logs",
        title = "Logs of a task",
        description = "Read the logs of an implementation task, while it runs and afterwards. Also: what did the agent \
            do step by step, errors, output, why it failed. Returns the last 100 lines, or with a cursor the lines \
            after an earlier result.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = output_schema::<LogsOutput>()
    )]
    async fn get_task_logs(&self, Parameters(arguments): Parameters<LogsArguments>) -> CallToolResult {
        with_timeout(async { logs::logs(self, &arguments?).await }).await
    }

    #[tool(
        name = "get_task_diff",
        title = "Changes of a task",
        description = "Show the changes of an implementation task as a diff. Also: what did the agent change, which \
            files, show me the code, review the patch. Returns the changed files with their numbers of lines and the \
            patch; filter by path, or list the files only (stat: true).",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = output_schema::<DiffOutput>()
    )]
    async fn get_task_diff(&self, Parameters(arguments): Parameters<DiffArguments>) -> CallToolResult {
        with_timeout(async { diff::diff(self, arguments?).await }).await
    }

    #[tool(
        name = "wait_for_task",
        title = "Wait for a task",
        description = "Wait for an implementation task to finish. Also: watch or follow it to the end, with progress. \
            Returns the status after the end or after 45 seconds at most: call it again to wait longer.",
        annotations(read_only_hint = true, open_world_hint = false),
        output_schema = output_schema::<WaitOutput>()
    )]
    async fn wait_for_task(
        &self,
        Parameters(arguments): Parameters<WaitArguments>,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        into_result(async { wait::wait(self, &arguments?, context).await }.await)
    }

    #[tool(
        name = "stop_task",
        title = "Stop a task",
        description = "Stop a running implementation task. Also: cancel, abort, kill, halt. The agent stops, its work \
            is saved and pushed, and the workspace is kept for a retry. Returns whether the run has stopped.",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = true),
        output_schema = output_schema::<StopOutput>()
    )]
    async fn stop_task(&self, Parameters(arguments): Parameters<StopArguments>) -> CallToolResult {
        with_timeout(async { stop::stop(self, &arguments?).await }).await
    }
}
