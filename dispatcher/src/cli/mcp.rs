//! mcp.

use super::{GlobalArgs, session};
use crate::error::Error;
use crate::mcp::{Server, TransportKind, stdio};

/// Serves the MCP protocol over stdin and stdout, for an IDE.
///
/// The configuration is read anew for each call: what is edited is in effect at
/// once. Ends when stdin does; runs go on.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher setup claude
  dispatcher mcp --config ~/work/orchestrator.toml")]
pub(super) struct Arguments {}

pub(super) async fn run(global: GlobalArgs, Arguments {}: Arguments) -> Result<u8, Error> {
    let load = move || Ok(session(global.clone())?.dispatcher);
    stdio::serve(Server::loading(load, TransportKind::Stdio)).await;
    Ok(0)
}
