//! Paths of the MCP configuration files of each client.

use std::path::{Path, PathBuf};

use super::{Client, Scope};
use crate::config::Environment;
use crate::error::Error;

/// Returns a client's configuration file, of the user or the project.
///
/// # Errors
/// Returns an error if HOME is needed and not set.
pub fn config_path(
    client: Client,
    scope: Scope,
    folder: &Path,
    environment: &Environment,
) -> Result<PathBuf, Error> {
    let home = || {
        environment.path("HOME").ok_or_else(|| {
            Error::configuration(format!("cannot find the settings of {}: HOME is not set", client.name()))
                .with_hint("Set HOME, or use --scope project.")
        })
    };
    Ok(match (client, scope) {
        // https://code.claude.com/docs/en/mcp, "MCP installation scopes"
        (Client::Claude, Scope::Project) => folder.join(".mcp.json"),
        (Client::Claude, Scope::User) => match environment.path("CLAUDE_CONFIG_DIR") {
            Some(folder) => folder.join(".claude.json"),
            None => home()?.join(".claude.json"),
        },
        // https://cursor.com/docs/mcp, "Configuration locations"
        (Client::Cursor, Scope::Project) => folder.join(".cursor/mcp.json"),
        (Client::Cursor, Scope::User) => home()?.join(".cursor/mcp.json"),
        // https://code.visualstudio.com/docs/copilot/reference/mcp-configuration; the user's file is
        // beside settings.json.
        (Client::Vscode, Scope::Project) => folder.join(".vscode/mcp.json"),
        (Client::Vscode, Scope::User) => vscode_user_folder(home()?, environment).join("mcp.json"),
    })
}

fn vscode_user_folder(home: PathBuf, environment: &Environment) -> PathBuf {
    let settings = if cfg!(target_os = "macos") {
        home.join("Library/Application Support")
    } else {
        environment.path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"))
    };
    settings.join("Code/User")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_own_config_path() {
        let environment = Environment::from_iter([("HOME", "/home/me")]);
        let of = |client, scope| config_path(client, scope, Path::new("/src/trader"), &environment).unwrap();
        assert_eq!(of(Client::Claude, Scope::User), Path::new("/home/me/.claude.json"));
        assert_eq!(of(Client::Claude, Scope::Project), Path::new("/src/trader/.mcp.json"));
        assert_eq!(of(Client::Cursor, Scope::User), Path::new("/home/me/.cursor/mcp.json"));
        assert_eq!(of(Client::Cursor, Scope::Project), Path::new("/src/trader/.cursor/mcp.json"));
        assert!(of(Client::Vscode, Scope::User).ends_with("Code/User/mcp.json"));
        assert_eq!(of(Client::Vscode, Scope::Project), Path::new("/src/trader/.vscode/mcp.json"));
    }

    #[test]
    fn claude_config_dir_determines_config_path() {
        let environment = Environment::from_iter([("CLAUDE_CONFIG_DIR", "/etc/claude")]);
        let path = config_path(Client::Claude, Scope::User, Path::new("/"), &environment).unwrap();
        assert_eq!(path, Path::new("/etc/claude/.claude.json"));
        assert!(config_path(Client::Cursor, Scope::User, Path::new("/"), &environment).is_err());
    }
}
