//! serve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Global, session};
use crate::config::{Config, ServeSettings, parse_address};
use crate::mcp::{Origin, Server};
use crate::problem::Problem;
use crate::serve::auth::Tokens;
use crate::serve::{self, DEFAULT_ADDRESS, Limits, Settings};
use crate::telemetry;
use crate::verbs::Dispatcher;

/// Serves the MCP tools over HTTP, for clients that cannot start this program themselves.
///
/// The endpoint is `/mcp`; `/healthz` and `/readyz` tell whether it lives and can work. Without a token it
/// listens on this machine only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher serve
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
    /// A web page that may call it, as https://name:port; may be repeated [env:
    /// ORCHESTRATOR_SERVE_ALLOWED_ORIGINS].
    #[arg(long, value_name = "ORIGIN")]
    allowed_origin: Vec<String>,
}

pub(super) async fn run(global: Global, arguments: Arguments) -> Result<u8, Problem> {
    let (first, second) = serve::signals()?;
    let load = move || {
        let config = session(global.clone())?.dispatcher.config().clone();
        Ok(Dispatcher::new(config.for_callers_elsewhere()))
    };
    let dispatcher = load()?;
    telemetry::start(&dispatcher.config().environment)?;
    let bound = serve::bind(settings(dispatcher.config(), arguments)?).await?;
    let server = Server::loading(load.clone(), Origin::Http);
    let closing = server.closing();
    let stop = async move {
        let stop = first.await;
        // Whoever waits for a run is told how it stands.
        closing.cancel();
        stop
    };
    let check = Arc::new(move || -> BoxFuture<'static, Result<(), Problem>> {
        let load = load.clone();
        Box::pin(async move { load()?.ready().await })
    });
    Ok(bound.serve(move || server.clone(), check, stop, second).await.exit_code())
}

fn settings(config: &Config, arguments: Arguments) -> Result<Settings, Problem> {
    let Arguments { address, token_file, allowed_host, allowed_origin } = arguments;
    let ServeSettings { address: set_address, token_file: set_file, allowed_hosts, allowed_origins } =
        config.serve().clone();
    let named = match token_file {
        Some(path) => Some(absolute(path)?),
        None => None,
    };
    let given =
        || config.environment.text("ORCHESTRATOR_SERVE_TOKEN").map(|token| Tokens::Given(token.into()));
    let tokens = named.map(Tokens::File).or_else(given).or(set_file.map(Tokens::File));
    let over = |flags: Vec<String>, set: Vec<String>| if flags.is_empty() { set } else { flags };
    Ok(Settings {
        address: address.or(set_address).unwrap_or(DEFAULT_ADDRESS),
        tokens: tokens.unwrap_or(Tokens::NotNeeded),
        allowed_hosts: over(allowed_host, allowed_hosts),
        allowed_origins: over(allowed_origin, allowed_origins),
        limits: Limits::default(),
    })
}

fn absolute(path: PathBuf) -> Result<PathBuf, Problem> {
    std::path::absolute(&path)
        .map_err(|error| Problem::configuration(format!("cannot tell where {} is: {error}", path.display())))
}
