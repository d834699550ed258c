//! `dispatcher mcp`.

use super::context::{CliContext, GlobalArgs};
use crate::error::Error;
use crate::mcp::{Server, TransportKind, stdio};

/// Serve the MCP tools over stdin and stdout
///
/// For MCP clients that start the server themselves, such as an IDE; `dispatcher setup` configures
/// them. The configuration is read on every call. Exits when stdin closes; runs continue.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher setup claude
  dispatcher mcp --config ~/work/orchestrator.toml")]
pub(super) struct Arguments {}

pub(super) async fn run(global: GlobalArgs, Arguments {}: Arguments) -> Result<u8, Error> {
    let load = move || Ok(CliContext::load(global.clone())?.dispatcher);
    stdio::serve(Server::loading(load, TransportKind::Stdio)).await;
    Ok(0)
}
