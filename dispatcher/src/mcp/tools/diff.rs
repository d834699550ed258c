//! `get_task_diff`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::output::ToolOutput;
use crate::mcp::arguments::{RunArguments, TaskIdArg};
use crate::mcp::outputs::DiffOutput;
use crate::mcp::select::{ToolError, select_run};
use crate::mcp::server::Server;
use crate::mcp::text::{listed_files, render_diff};
use crate::task::selection::Purpose;

/// Arguments of `get_task_diff`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffArguments {
    /// Run name; also `current`, `latest`, `task 3` or the name of a service (default: the active run, else
    /// the latest).
    run: Option<String>,
    /// Service to filter by, such as `trader`.
    service: Option<String>,
    /// Task number to filter by, such as 1.
    task_id: Option<TaskIdArg>,
    /// Only files with a path that contains this, such as `src/`.
    path: Option<String>,
    /// Only list the files with their numbers of changed lines.
    #[serde(default)]
    stat: bool,
}

pub(super) async fn diff(
    server: &Server,
    arguments: DiffArguments,
) -> Result<ToolOutput<DiffOutput>, ToolError> {
    let DiffArguments { run, service, task_id, path, stat } = arguments;
    let dispatcher = server.dispatcher()?;
    let status = select_run(&dispatcher, &RunArguments { run, service, task_id }, Purpose::Inspect).await?;
    let mut diff = dispatcher.diff(&status.run).await?;
    if let Some(path) = path {
        diff = diff.with_paths(path.trim());
    }
    let (files, omitted_files) = listed_files(&diff);
    Ok(ToolOutput {
        text: render_diff(&status, &diff, !stat),
        value: DiffOutput {
            run: status.run.to_string(),
            branch: status.branch,
            files,
            omitted_files,
            truncated: diff.truncated,
        },
    })
}
