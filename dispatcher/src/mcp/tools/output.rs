//! Results of tool calls.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::Reason;
use rmcp::handler::server::tool::schema_for_output;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::mcp::schema;
use crate::mcp::select::ToolError;

/// Output of a tool: text for the model, and the same as a value.
pub(super) struct ToolOutput<T> {
    pub(super) text: String,
    pub(super) value: T,
}

/// Returns the schema of a tool's structured content.
pub(super) fn output_schema<T: JsonSchema + Any>() -> Arc<JsonObject> {
    let full = schema_for_output::<StructuredContent<T>>();
    let Ok(mut simple) = Schema::try_from(Value::Object(JsonObject::clone(&full))) else { return full };
    schema::remove_formats(&mut simple);
    match simple.to_value() {
        Value::Object(simple) => Arc::new(simple),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => full,
    }
}

/// Structured content; includes the text, since Claude Code passes nothing else to its model (2.1.330,
/// measured).
#[derive(JsonSchema, Serialize)]
struct StructuredContent<T> {
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
