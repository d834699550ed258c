//! Results of tool calls.

use std::time::Duration;

use orchestrator_contract::Reason;
use rmcp::model::{CallToolResult, ContentBlock};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::mcp::select::ToolError;

/// Output of a tool: text for the model, and the same as a value.
pub(super) struct ToolOutput<T> {
    pub(super) text: String,
    pub(super) value: T,
}

/// Structured content; includes the text, since Claude Code passes nothing else to its model (2.1.330,
/// measured).
#[derive(JsonSchema, Serialize)]
pub(super) struct StructuredContent<T> {
    /// Result as text.
    text: String,
    #[serde(flatten)]
    value: T,
}

/// Maximum duration of a call, except `wait_for_task`: a backend may not respond, and a client that learns so
/// can react.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns an error if a call takes too long; what it started continues.
pub(super) async fn with_timeout<T>(
    call: impl Future<Output = Result<ToolOutput<T>, ToolError>>,
) -> CallToolResult
where
    T: Serialize,
{
    let timed_out = || {
        let seconds = CALL_TIMEOUT.as_secs();
        Error::new(Reason::RemoteUnavailable, format!("the backend did not respond within {seconds} s"))
            .with_hint("Try again; check with `list_tasks` before submitting a second time.")
    };
    into_result(tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(timed_out().into())))
}

pub(super) fn into_result<T: Serialize>(result: Result<ToolOutput<T>, ToolError>) -> CallToolResult {
    match result {
        Ok(ToolOutput { text, value }) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(text.clone())]);
            result.structured_content = serde_json::to_value(StructuredContent { text, value }).ok();
            result
        }
        // A tool error, not a protocol error: clients rarely show the latter.
        Err(error) => CallToolResult::error(vec![ContentBlock::text(error.message())]),
    }
}
