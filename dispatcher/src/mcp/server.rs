//! The server: its identity, instructions and request handlers.

use std::fmt;
use std::sync::Arc;

use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::model::{
    CallToolResult, CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, CustomRequest,
    CustomResult, ErrorCode, Implementation, ListResourceTemplatesResult, ListResourcesResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ServerCapabilities, ServerConfig, ServerResult,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, prompt_handler, tool_handler};

use tokio_util::sync::CancellationToken;

use super::text::render_error;
use super::{completion, parameters, resources};
use crate::error::Error;
use crate::operations::Dispatcher;

/// Transport of the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransportKind {
    /// The client spawned this process: both share the working directory.
    Stdio,
    /// The client may be remote: it has no working directory here, and its paths are not valid here.
    Http,
}

/// Creates the dispatcher for one call.
pub type DispatcherFactory = dyn Fn() -> Result<Dispatcher, Error> + Send + Sync;

/// The MCP server. Stateless: each call may reach another process.
#[derive(Clone)]
pub struct Server {
    load: Arc<DispatcherFactory>,
    pub(super) origin: TransportKind,
    closing: CancellationToken,
    tools: ToolRouter<Self>,
    prompts: PromptRouter<Self>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Instructions for the model about the server.
const INSTRUCTIONS: &str = "\
Runs Claude agents that implement tasks in containers or background processes; each run ends in a pull request. Use \
it when the user wants a task of a service implemented, started, retried or stopped, or asks how it is going.
- Start: submit_implementation_task with task_id and service (\"implement task 1 of the trader service\"). It \
returns the run's name immediately; the run continues in the background, for minutes to hours.
- How is it going: get_task_status (without arguments: the active run, else the latest). Details: get_task_logs. Changes: get_task_diff. \
Overview: list_tasks. To wait for the end, call wait_for_task repeatedly.
- It failed or took a wrong approach: submit_implementation_task with retry: true and guidance in the user's words; \
omit task_id and service for the last task. The branch and its work are kept.
- Another service (\"switch to the user-service repository\"): list_tasks with service shows where it stands; pass its \
name as service, and its repository_url if the user gives one, in the calls that follow.
- Stop: stop_task. The work is saved, the workspace is kept.
- Documentation of tasks, before they are implemented: init_docs (\"generate documentation for task 5\", \"create docs \
for all tasks\"; regenerate: force: true). Follow and stop it like any other run.
Pass on what the user said about repository, model, agent, branch and working directory; omit what they did not say. \
If a tool lists several runs, ask the user which one is meant.";

impl Server {
    /// Creates a server with a fixed dispatcher.
    #[must_use]
    pub fn new(dispatcher: Dispatcher, origin: TransportKind) -> Self {
        Self::loading(move || Ok(dispatcher.clone()), origin)
    }

    /// Creates a server that loads the dispatcher for each call.
    ///
    /// An edited configuration applies immediately, and each tool reports an invalid one instead of the
    /// server failing to start.
    pub fn loading(
        load: impl Fn() -> Result<Dispatcher, Error> + Send + Sync + 'static,
        origin: TransportKind,
    ) -> Self {
        Self {
            load: Arc::new(load),
            origin,
            closing: CancellationToken::new(),
            tools: Self::tool_router(),
            prompts: Self::prompt_router(),
        }
    }

    /// Returns the token that is canceled when the connection or process ends, so that calls stop waiting.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Loads the dispatcher for one call.
    pub(super) fn dispatcher(&self) -> Result<Dispatcher, Error> {
        (self.load)()
    }

    fn resource_dispatcher(&self) -> Result<Dispatcher, ErrorData> {
        self.dispatcher().map_err(|error| resources::not_found(&error))
    }
}

#[tool_handler(router = self.tools)]
#[prompt_handler(router = self.prompts)]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_completions()
            .build();
        let implementation = Implementation::new("orchestrator", env!("CARGO_PKG_VERSION"))
            .with_title("Orchestrator")
            .with_description("Runs Claude agents that implement tasks, and reports their progress");
        ServerConfig::new(capabilities).with_server_info(implementation).with_instructions(INSTRUCTIONS)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list(&self.resource_dispatcher()?).await?))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = resources::read(&self.resource_dispatcher()?, &request.uri).await?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    /// Handles a call of a tool whose `arguments` are not an object: rmcp does not read it as one.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        let call = if method == "tools/call" { parameters::repair_call(params) } else { None };
        let result = match call {
            Some(Ok(call)) => serde_json::to_value(ServerResult::from(self.call_tool(call, context).await?)),
            Some(Err(error)) => {
                serde_json::to_value(CallToolResult::error(vec![ContentBlock::text(render_error(&error))]))
            }
            None => return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method, None)),
        };
        let result = result.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(CustomResult(result))
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let given = request.context.and_then(|context| context.arguments).unwrap_or_default();
        let argument = request.argument;
        // An unusable configuration offers no values; the tools report it.
        let Ok(dispatcher) = self.dispatcher() else {
            return Ok(CompleteResult::new(CompletionInfo::default()));
        };
        Ok(CompleteResult::new(
            completion::complete(&dispatcher, &argument.name, &argument.value, &given).await,
        ))
    }
}
