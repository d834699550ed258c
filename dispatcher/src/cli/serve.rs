//! serve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{GlobalArgs, session};
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

/// Serves the MCP tools over HTTP, for clients that cannot start this program themselves.
///
/// The endpoint is `/mcp`; `/healthz` and `/readyz` tell whether it lives and can work. Without a token it
/// listens on this machine only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher serve
  dispatcher serve --controller --metrics-address 0.0.0.0:9090
  dispatcher serve --address 0.0.0.0:8750 --token-file token --allowed-host orchestrator.example.com
  claude mcp add --transport http orchestrator http://127.0.0.1:8750/mcp")]
#[expect(clippy::doc_markdown, reason = "these comments are the help's text, as it is")]
pub(super) struct Arguments {
    /// Where to listen [env: ORCHESTRATOR_SERVE_ADDRESS] [default: 127.0.0.1:8750].
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    address: Option<SocketAddr>,
    /// The file with the token that callers must show, one on each line; read at every call [env:
    /// ORCHESTRATOR_SERVE_TOKEN_FILE, or the token itself in ORCHESTRATOR_SERVE_TOKEN].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A name by which callers may call it, with or without a port; may be repeated [env:
    /// ORCHESTRATOR_SERVE_ALLOWED_HOSTS].
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Looks after the TaskRuns of the configured namespace as well: one of several servers at a time does.
    #[arg(long)]
    controller: bool,
    /// Where to tell Prometheus what is counted [env: ORCHESTRATOR_SERVE_METRICS_ADDRESS] [default: nowhere].
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    metrics_address: Option<SocketAddr>,
    /// A web page that may call it, as https://name:port; may be repeated [env:
    /// ORCHESTRATOR_SERVE_ALLOWED_ORIGINS].
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
}

pub(super) async fn run(global: GlobalArgs, mut arguments: Arguments) -> Result<u8, Error> {
    let (first, second) = serve::signals()?;
    let load = move || {
        let config = session(global.clone())?.dispatcher.config().clone();
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
        // Whoever waits for a run is told how it stands.
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

/// What runs beside the server.
struct Helpers {
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// How long the controller may take to finish what it is doing.
const FINISH: Duration = Duration::from_secs(10);

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
            let client = cluster::connect(config.kubernetes(), &config.environment).await?;
            // Two on one machine must not take each other for themselves.
            let host = config.environment.text("HOSTNAME").unwrap_or("dispatcher");
            let name = format!("{host}-{}", std::process::id());
            tasks.spawn(manager::run(client, config, metrics, name, stopping.clone()));
        }
        tasks.close();
        Ok(Self { stopping, tasks })
    }

    async fn stop(self) {
        self.stopping.cancel();
        if tokio::time::timeout(FINISH, self.tasks.wait()).await.is_err() {
            tracing::warn!("stopped with work in hand; whoever leads next goes on with it");
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
    let named = match token_file {
        Some(path) => Some(absolute(path)?),
        None => None,
    };
    let given =
        || config.environment.text("ORCHESTRATOR_SERVE_TOKEN").map(|token| TokenSource::Inline(token.into()));
    let tokens = named.map(TokenSource::File).or_else(given).or(set_file.map(TokenSource::File));
    let over = |flags: Vec<String>, set: Vec<String>| if flags.is_empty() { set } else { flags };
    Ok(ServeOptions {
        address: address.or(set_address).unwrap_or(DEFAULT_ADDRESS),
        tokens: tokens.unwrap_or(TokenSource::Disabled),
        allowed_hosts: over(allowed_host, allowed_hosts),
        allowed_origins: over(allowed_origin, allowed_origins),
        limits: Limits::default(),
    })
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path)
        .map_err(|error| Error::configuration(format!("cannot tell where {} is: {error}", path.display())))
}
