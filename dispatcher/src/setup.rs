//! How this server is made known to the programs that people work in.
//!
//! | module | what it knows |
//! |---|---|
//! | [`entry`] | what a client's entry for this server says (pure) |
//! | [`edit`] | how the entry gets into a file whose other bytes stay (pure) |
//! | [`place`] | where each client keeps that file |
//! | [`write`] | how the file is replaced |

pub mod edit;
pub mod entry;
pub mod paths;
pub mod write;

use clap::ValueEnum;

/// The server's name in every client.
pub const SERVER: &str = "orchestrator";

/// A program that talks to MCP servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Client {
    /// Claude Code.
    Claude,
    /// Cursor.
    Cursor,
    /// Visual Studio Code.
    Vscode,
}

/// For whom the entry is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Scope {
    /// You, in every folder.
    #[default]
    User,
    /// Everybody who opens this folder.
    Project,
}

impl Client {
    /// How people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "Claude Code",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
        }
    }

    /// The key of the object that holds the servers.
    #[must_use]
    pub fn servers_key(self) -> &'static str {
        match self {
            Self::Claude | Self::Cursor => "mcpServers",
            // https://code.visualstudio.com/docs/copilot/reference/mcp-configuration
            Self::Vscode => "servers",
        }
    }
}
