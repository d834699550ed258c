//! The HTTP layer with a test tool and configurable limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dispatcher::serve::auth::TokenSource;
use dispatcher::serve::{BoundServer, Limits, ServeOptions, Shutdown, bind};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use tokio::sync::{Notify, oneshot};

use super::http::TOKEN;

/// A server in this process, stopped when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) tools: Tools,
    stop: Option<oneshot::Sender<()>>,
    now: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Shutdown>>,
}

/// Counts its calls; `hold` blocks until it is released.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) started: Arc<AtomicUsize>,
    pub(crate) ended: Arc<AtomicUsize>,
    pub(crate) go: Arc<Notify>,
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Tools {
    fn new() -> Self {
        Self {
            started: Arc::default(),
            ended: Arc::default(),
            go: Arc::default(),
            tool_router: Self::tool_router(),
        }
    }

    #[tool(description = "Answers immediately")]
    async fn count(&self) -> CallToolResult {
        let count = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        self.ended.fetch_add(1, Ordering::SeqCst);
        CallToolResult::success(vec![ContentBlock::text(count.to_string())])
    }

    #[tool(description = "Answers when it is let go")]
    async fn hold(&self) -> CallToolResult {
        let go = self.go.notified();
        self.started.fetch_add(1, Ordering::SeqCst);
        go.await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        CallToolResult::success(vec![ContentBlock::text("let go")])
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {}

pub(crate) fn settings() -> ServeOptions {
    ServeOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        tokens: TokenSource::Inline(TOKEN.into()),
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        limits: Limits::default(),
    }
}

impl TestServer {
    pub(crate) fn start(settings: ServeOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bound: BoundServer = runtime.block_on(bind(settings)).unwrap();
        let address = bound.address();
        let tools = Tools::new();
        let ((stop, stopped), (now, immediate)) = (oneshot::channel(), oneshot::channel());
        let handler = tools.clone();
        let serve = async move {
            let stop = async move { stopped.await.map_or(Shutdown::Graceful, |()| Shutdown::Graceful) };
            let now = async move {
                match immediate.await {
                    Ok(()) => Shutdown::Immediate(15),
                    Err(_) => std::future::pending().await,
                }
            };
            bound.serve(move || handler.clone(), Arc::new(|| Box::pin(async { Ok(()) })), stop, now).await
        };
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        Self { address, tools, stop: Some(stop), now: Some(now), thread: Some(thread) }
    }

    pub(crate) fn started(&self) -> usize {
        self.tools.started.load(Ordering::SeqCst)
    }

    pub(crate) fn ended(&self) -> usize {
        self.tools.ended.load(Ordering::SeqCst)
    }

    /// Requests a graceful shutdown.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Requests an immediate shutdown.
    pub(crate) fn stop_now(&mut self) {
        self.now.take().unwrap().send(()).ok();
    }

    /// Waits for the server to stop.
    pub(crate) fn join(&mut self) -> Shutdown {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.tools.go.notify_waiters();
        self.stop();
        if let Some(now) = self.now.take() {
            now.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
