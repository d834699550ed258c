//! MCP over HTTP: `/mcp`, and `/healthz` and `/readyz` for probes.
//!
//! ```text
//! connection (limit, timeouts) -> route -> single Host and Origin -> token
//!     -> whole request (limit, timeout) -> audit -> MCP library (Host, Origin, headers) -> tools
//! ```
//!
//! The server is stateless: each call is independent, and a restart only loses calls in flight.

pub mod auth;
pub mod guard;
pub mod metrics;
pub mod own_token;

mod audit;
mod connections;
mod endpoint;
mod health;
mod limits;
mod signals;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use limits::Limits;
pub use signals::{Shutdown, signals};
pub use state::Check;

use self::auth::TokenSource;
use self::state::{Mcp, Server};
use crate::error::Error;

/// Default address to listen on.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8750);

/// Options of the server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub address: SocketAddr,
    /// Accepted tokens.
    pub tokens: TokenSource,
    /// Accepted `Host` names besides loopback, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Web origins that may call the server, as `scheme://name:port`.
    pub allowed_origins: Vec<String>,
    pub limits: Limits,
}

/// Rejects unsafe options.
///
/// # Errors
/// Returns an error if the server is reachable from other machines without a configured token, or the token
/// is invalid.
pub fn check(settings: &ServeOptions) -> Result<(), Error> {
    let loopback = settings.address.ip().to_canonical().is_loopback();
    if !loopback && matches!(settings.tokens, TokenSource::Own(_)) {
        let problem = format!(
            "{} is reachable from other machines, and no token is configured for them",
            settings.address
        );
        return Err(Error::configuration(problem).with_hint(
            "Provide a token file (--token-file FILE, ORCHESTRATOR_SERVE_TOKEN_FILE or token_file in [serve]; \
             create one with: openssl rand -hex 32), or listen on 127.0.0.1.",
        ));
    }
    settings.tokens.check()
}

/// A server that is bound to its address, but not serving yet.
#[derive(Debug)]
pub struct BoundServer {
    listener: TcpListener,
    address: SocketAddr,
    settings: ServeOptions,
}

/// Binds the address.
///
/// # Errors
/// Returns an error if the options are unsafe, or the address cannot be bound.
pub async fn bind(settings: ServeOptions) -> Result<BoundServer, Error> {
    check(&settings)?;
    let unusable = |error: std::io::Error| {
        Error::configuration(format!("cannot listen on {}: {error}", settings.address))
            .with_hint("Use another address with --address IP:PORT.")
    };
    let listener = TcpListener::bind(settings.address).await.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    Ok(BoundServer { listener, address, settings })
}

impl BoundServer {
    /// Returns the bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then finishes calls in flight until `now` or the grace period.
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
            warn!("no --allowed-host set, accepting loopback host names only");
        }
        let cut = CancellationToken::new();
        let calls = TaskTracker::new();
        let stopping = CancellationToken::new();
        let service = service(handler, hosts, allowed_origins, limits, cut.clone());
        let server =
            Server { tokens, limits, mcp: service, check, calls: calls.clone(), stopping: stopping.clone() };
        let token_file = match &server.tokens {
            TokenSource::Own(path) | TokenSource::File(path) => path.display().to_string(),
            TokenSource::Inline(_) => String::new(),
        };
        let router = Router::new()
            .route("/mcp", any(endpoint::answer))
            .route("/healthz", get(health::live))
            .route("/readyz", get(health::ready))
            .with_state(server);
        info!(%address, token_file, "listening");

        let connections = TaskTracker::new();
        let accepting = connections::accept_loop(listener, &router, limits, &stopping, &connections);
        let mut accepting = std::pin::pin!(accepting);
        let first = tokio::select! {
            () = &mut accepting => Shutdown::Graceful,
            first = stop => first,
        };
        info!("shutting down, finishing calls in flight");
        stopping.cancel();
        accepting.await;
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
                warn!(calls = calls.len(), "stopped with calls in flight");
            }
            now = now => return now,
        }
        first
    }
}

/// Builds the MCP service, without sessions, so that any replica can handle any call.
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
