//! `dispatcher serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{CliContext, GlobalArgs};
use crate::cluster;
use crate::config::{Config, ServeSettings, parse_address};
use crate::controller::manager;
use crate::controller::metrics::Metrics;
use crate::error::Error;
use crate::logging;
use crate::mcp::{Server, TransportKind};
use crate::operations::Dispatcher;
use crate::serve::auth::TokenSource;
use crate::serve::{self, DEFAULT_ADDRESS, Limits, ServeOptions};

/// Serve the MCP tools over HTTP
///
/// For clients that cannot start this program themselves. The endpoint is `/mcp`; `/healthz` and
/// `/readyz` are for probes. Every call needs a token. Without a configured one, the server creates a
/// token file for clients of the same user, and listens on loopback only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher serve
  dispatcher serve --controller --metrics-address 0.0.0.0:9090
  dispatcher serve --address 0.0.0.0:8750 --token-file token --allowed-host orchestrator.example.com
  dispatcher setup claude --url http://127.0.0.1:8750/mcp")]
#[expect(clippy::doc_markdown, reason = "these comments are the help's text, as it is")]
pub(super) struct Arguments {
    /// Address to listen on [env: ORCHESTRATOR_SERVE_ADDRESS] [default: 127.0.0.1:8750]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    address: Option<SocketAddr>,
    /// File with the accepted bearer tokens, one per line [env: ORCHESTRATOR_SERVE_TOKEN_FILE]
    /// [default: ~/.config/orchestrator/serve-token]
    ///
    /// Read on every request. ORCHESTRATOR_SERVE_TOKEN may hold a token instead. The server creates the
    /// default file if it does not exist.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Accepted Host name, with or without a port (repeatable) [env:
    /// ORCHESTRATOR_SERVE_ALLOWED_HOSTS]
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Also reconcile TaskRuns of the configured namespace; one replica leads at a time
    #[arg(long)]
    controller: bool,
    /// Address to serve Prometheus metrics on [env: ORCHESTRATOR_SERVE_METRICS_ADDRESS] [default:
    /// disabled]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    metrics_address: Option<SocketAddr>,
    /// Web origin that may call the server, as https://name:port (repeatable) [env:
    /// ORCHESTRATOR_SERVE_ALLOWED_ORIGINS]
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
}

pub(super) async fn run(global: GlobalArgs, mut arguments: Arguments) -> Result<u8, Error> {
    let (first, second) = serve::signals()?;
    let load = move || {
        let config = CliContext::load(global.clone())?.dispatcher.config().clone();
        Ok(Dispatcher::new(config.for_remote_callers()))
    };
    let dispatcher = load()?;
    logging::start(&dispatcher.config().environment)?;
    let controller = std::mem::take(&mut arguments.controller);
    let metrics_address = arguments.metrics_address.take().or(dispatcher.config().serve().metrics_address);
    let bound = serve::bind(settings(dispatcher.config(), arguments)?).await?;
    let helpers = Helpers::start(&dispatcher, controller, metrics_address).await?;
    let server = Server::loading(load.clone(), TransportKind::Http);
    let closing = server.closing();
    let stop = async move {
        let stop = first.await;
        // Pending waits return the current status.
        closing.cancel();
        stop
    };
    let check = Arc::new(move || -> BoxFuture<'static, Result<(), Error>> {
        let load = load.clone();
        Box::pin(async move { load()?.ready().await })
    });
    let stop = bound.serve(move || server.clone(), check, stop, second).await;
    helpers.stop().await;
    Ok(stop.exit_code())
}

/// Background tasks beside the HTTP server.
struct Helpers {
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// How long the controller may take to finish its current reconciliations.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

impl Helpers {
    async fn start(
        dispatcher: &Dispatcher,
        controller: bool,
        metrics_address: Option<SocketAddr>,
    ) -> Result<Self, Error> {
        let (stopping, tasks, metrics) = (CancellationToken::new(), TaskTracker::new(), Metrics::default());
        if let Some(address) = metrics_address {
            let (counted, stop) = (metrics.clone(), stopping.clone());
            let serving =
                serve::metrics::serve(address, move || counted.render(Timestamp::now()), stop).await?;
            tasks.spawn(serving);
        }
        if controller {
            let config = Arc::new(dispatcher.config().clone());
            config.kubernetes().supervisor_image()?;
            let client = cluster::connect(config.kubernetes(), &config.environment).await?;
            cluster::require_version(&client).await?;
            // Two replicas on one machine need different lease identities.
            let host = config.environment.text("HOSTNAME").unwrap_or("dispatcher");
            let name = format!("{host}-{}", std::process::id());
            tasks.spawn(manager::run(client, config, metrics, name, stopping.clone()));
        }
        tasks.close();
        Ok(Self { stopping, tasks })
    }

    async fn stop(self) {
        self.stopping.cancel();
        if tokio::time::timeout(FINISH_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("shut down mid-reconcile; the next leader resumes");
        }
    }
}

fn settings(config: &Config, arguments: Arguments) -> Result<ServeOptions, Error> {
    let Arguments { address, token_file, allowed_host, allowed_origin, controller: _, metrics_address: _ } =
        arguments;
    let ServeSettings {
        address: set_address,
        token_file: set_file,
        allowed_hosts,
        allowed_origins,
        metrics_address: _,
    } = config.serve().clone();
    let file = match token_file {
        Some(path) => Some(absolute(path)?),
        None => None,
    };
    let inline =
        || config.environment.text("ORCHESTRATOR_SERVE_TOKEN").map(|token| TokenSource::Inline(token.into()));
    let tokens = file.map(TokenSource::File).or_else(inline).or(set_file.map(TokenSource::File));
    let tokens = match tokens {
        Some(tokens) => tokens,
        None => own_token(config)?,
    };
    let over = |flags: Vec<String>, set: Vec<String>| if flags.is_empty() { set } else { flags };
    Ok(ServeOptions {
        address: address.or(set_address).unwrap_or(DEFAULT_ADDRESS),
        tokens,
        allowed_hosts: over(allowed_host, allowed_hosts),
        allowed_origins: over(allowed_origin, allowed_origins),
        limits: Limits::default(),
    })
}

/// Returns the token file of this user, and creates it if it does not exist.
fn own_token(config: &Config) -> Result<TokenSource, Error> {
    let path = serve::own_token::path(&config.environment).ok_or_else(|| {
        Error::configuration(
            "no token is configured, and neither HOME nor XDG_CONFIG_HOME says where to keep one",
        )
        .with_hint("Name a file with --token-file FILE.")
    })?;
    serve::own_token::create_if_missing(&path)?;
    Ok(TokenSource::Own(path))
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path)
        .map_err(|error| Error::configuration(format!("cannot resolve {}: {error}", path.display())))
}
