//! Registers this server with MCP clients.
//!
//! | module | responsibility |
//! |---|---|
//! | [`entry`] | the client's entry for this server (pure) |
//! | [`edit`] | inserts the entry and keeps all other bytes of the file (pure) |
//! | [`paths`] | the path of each client's configuration file |
//! | [`write`] | replaces the file |

pub mod edit;
pub mod entry;
pub mod paths;
pub mod write;

use clap::ValueEnum;

/// The server's name in each client's configuration.
pub const SERVER: &str = "orchestrator";

/// An MCP client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Client {
    /// Claude Code
    Claude,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
}

/// Who gets the entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Scope {
    /// You, in all folders
    #[default]
    User,
    /// Everyone who opens this folder
    Project,
}

impl Client {
    /// Returns the product name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "Claude Code",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
        }
    }

    /// Returns the key of the object that holds the servers.
    #[must_use]
    pub fn servers_key(self) -> &'static str {
        match self {
            Self::Claude | Self::Cursor => "mcpServers",
            // https://code.visualstudio.com/docs/copilot/reference/mcp-configuration
            Self::Vscode => "servers",
        }
    }
}
