//! MCP over HTTP: `/mcp`, and `/healthz` and `/readyz` for whoever watches over it.
//!
//! ```text
//! connection (limit, timeouts) -> route -> Host and Origin once only -> token
//!     -> whole request (limit, timeout) -> audit -> MCP library (Host, Origin, headers) -> tools
//! ```
//!
//! There is no state here: every call stands for itself, and a restart loses
//! nothing but the calls that were in flight.

pub mod auth;
pub mod guard;
pub mod metrics;

mod audit;
mod connections;
mod endpoint;
mod health;
mod limits;
mod signals;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{any, get};
use futures::future::BoxFuture;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use limits::Limits;
pub use signals::{Shutdown, signals};

use self::auth::TokenSource;
use crate::error::Error;

/// Where it listens if nobody says otherwise.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8750);

/// How the server is reached.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// What callers must show.
    pub tokens: TokenSource,
    /// Names, with or without a port, by which it may be called, loopback apart.
    pub allowed_hosts: Vec<String>,
    /// Web pages that may call it, as `scheme://name:port`.
    pub allowed_origins: Vec<String>,
    /// How much of everything a caller gets.
    pub limits: Limits,
}

/// Says whether calls can be carried out now.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

type Mcp = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// What every call needs; a clone is cheap.
#[derive(Clone)]
struct Server {
    tokens: TokenSource,
    limits: Limits,
    mcp: Mcp,
    check: Check,
    calls: TaskTracker,
    stopping: CancellationToken,
}

impl Server {
    async fn check(&self) -> Result<(), Error> {
        if self.tokens.are_needed() {
            self.tokens.check()?;
        }
        (self.check)().await
    }
}

/// Refuses what must not be started.
///
/// # Errors
/// Others than this machine could call, and need no token; or the token cannot be used.
pub fn check(settings: &ServeOptions) -> Result<(), Error> {
    let loopback = settings.address.ip().to_canonical().is_loopback();
    if !loopback && !settings.tokens.are_needed() {
        let problem = format!(
            "{} can be reached from other machines, and whoever reaches it could start agents",
            settings.address
        );
        return Err(Error::configuration(problem).with_hint(
            "Name a file with a token (--token-file FILE, ORCHESTRATOR_SERVE_TOKEN_FILE or token_file in [serve]; \
             make one with: openssl rand -hex 32), or listen on 127.0.0.1.",
        ));
    }
    settings.tokens.check()
}

/// A server that has its address, and is not serving yet.
#[derive(Debug)]
pub struct BoundServer {
    listener: TcpListener,
    address: SocketAddr,
    settings: ServeOptions,
}

/// Takes the address.
///
/// # Errors
/// The settings are refused, or the address cannot be used.
pub async fn bind(settings: ServeOptions) -> Result<BoundServer, Error> {
    check(&settings)?;
    let unusable = |error: std::io::Error| {
        Error::configuration(format!("cannot listen on {}: {error}", settings.address))
            .with_hint("Give another address with --address IP:PORT.")
    };
    let listener = TcpListener::bind(settings.address).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    Ok(BoundServer { listener, address, settings })
}

impl BoundServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, and then answers what is in flight, until `now` or the limit for it.
    pub async fn serve<H: ServerHandler>(
        self,
        handler: impl Fn() -> H + Send + Sync + 'static,
        check: Check,
        stop: impl Future<Output = Shutdown>,
        now: impl Future<Output = Shutdown>,
    ) -> Shutdown {
        let Self { listener, address, settings } = self;
        let ServeOptions { address: _, tokens, allowed_hosts, allowed_origins, limits } = settings;
        let hosts = guard::allowed_hosts(address, &allowed_hosts);
        if address.ip().is_unspecified() && allowed_hosts.is_empty() {
            warn!("only loopback names are let in: give the names that callers use, with --allowed-host");
        }
        let cut = CancellationToken::new();
        let calls = TaskTracker::new();
        let stopping = CancellationToken::new();
        let service = service(handler, hosts, allowed_origins, limits, cut.clone());
        let server =
            Server { tokens, limits, mcp: service, check, calls: calls.clone(), stopping: stopping.clone() };
        let token = server.tokens.are_needed();
        let router = Router::new()
            .route("/mcp", any(endpoint::answer))
            .route("/healthz", get(health::live))
            .route("/readyz", get(health::ready))
            .with_state(server);
        info!(%address, token, "listening");

        let connections = TaskTracker::new();
        let taking = connections::accept_loop(listener, &router, limits, &stopping, &connections);
        let mut taking = std::pin::pin!(taking);
        let first = tokio::select! {
            () = &mut taking => Shutdown::Graceful,
            first = stop => first,
        };
        info!("stopping: no more calls are taken, those in flight are answered");
        stopping.cancel();
        taking.await;
        for tasks in [&connections, &calls] {
            tasks.close();
        }
        let all = async {
            connections.wait().await;
            calls.wait().await;
        };
        tokio::select! {
            () = all => info!("stopped"),
            () = tokio::time::sleep(limits.grace) => {
                cut.cancel();
                warn!(calls = calls.len(), "stopped with calls in flight; runs go on");
            }
            now = now => return now,
        }
        first
    }
}

/// The MCP library's service: no sessions, so that any process can answer any call.
fn service<H: ServerHandler>(
    handler: impl Fn() -> H + Send + Sync + 'static,
    hosts: Vec<String>,
    origins: Vec<String>,
    limits: Limits,
    cut: CancellationToken,
) -> Mcp {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_allowed_hosts(hosts)
        .with_allowed_origins(origins)
        .enforce_origin_validation()
        .with_max_request_body_bytes(limits.body)
        .with_cancellation_token(cut);
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(handler()), sessions, config);
    Arc::new(move |request| {
        let service = service.clone();
        Box::pin(async move { service.handle(request).await.map(Body::new) })
    })
}
