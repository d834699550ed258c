//! The server itself: who it is, and whose verbs it speaks.

use std::fmt;
use std::sync::Arc;

use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::model::{
    CompleteRequestParams, CompleteResult, Implementation, ListResourceTemplatesResult, ListResourcesResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, prompt_handler, tool_handler};

use tokio_util::sync::CancellationToken;

use super::{completion, resources};
use crate::error::Error;
use crate::operations::Dispatcher;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransportKind {
    /// A client that started this program: its open folder is ours too.
    Stdio,
    /// A client somewhere else: there is no open folder, and its paths are not ours.
    Http,
}

/// Makes the verbs for one call.
pub type DispatcherFactory = dyn Fn() -> Result<Dispatcher, Error> + Send + Sync;

/// The MCP server. It keeps nothing between two calls: every one may go to another process.
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

/// What a model is told about the server as a whole.
const INSTRUCTIONS: &str = "\
Has Claude agents implement tasks in containers or background processes, each ending in a pull request, and follows \
them. Use it when the user wants a task of a service implemented, started, retried, stopped, or asks how it goes.
- Start: submit_implementation_task with task_id and service (\"implement task 1 of the trader service\"). It \
answers at once with the run's name; the run goes on by itself, for minutes to hours.
- How is it going: get_task_status (no arguments: the run at work, else the latest). Details: get_task_logs. \
Overview: list_tasks. To see it through: wait_for_task, again and again until it has ended.
- It failed or chose the wrong way: submit_implementation_task with retry: true and guidance in the user's words; \
task_id and service may be left out for the last task. Same branch, nothing is lost.
- Stop: stop_task. The work is saved, the workspace is kept.
- Documentation of tasks, before they are implemented: init_docs (\"generate documentation for task 5\", \"create docs \
for all tasks\"; regenerate: force: true). Followed and stopped like any other run.
Pass on what the user said about repository, model, agent, branch and working directory; leave out what they did \
not say. Where a tool lists several runs, ask the user which one is meant.";

impl Server {
    /// A server over verbs that stay the same.
    #[must_use]
    pub fn new(dispatcher: Dispatcher, origin: TransportKind) -> Self {
        Self::loading(move || Ok(dispatcher.clone()), origin)
    }

    /// A server that makes its verbs anew for each call, so that an edited configuration is in effect at
    /// once, and a broken one is told by each tool instead of keeping the server from starting.
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

    /// Cancelled when the connection or the program ends: no call waits any longer then.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// The verbs for one call.
    pub(super) fn dispatcher(&self) -> Result<Dispatcher, Error> {
        (self.load)()
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
            .with_description("Has Claude agents implement tasks, and follows what they do");
        ServerConfig::new(capabilities).with_server_info(implementation).with_instructions(INSTRUCTIONS)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list(self).await?))
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
        Ok(ReadResourceResult::new(vec![resources::read(self, &request.uri).await?]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let given = request.context.and_then(|context| context.arguments).unwrap_or_default();
        let argument = request.argument;
        Ok(CompleteResult::new(completion::complete(self, &argument.name, &argument.value, &given).await))
    }
}
