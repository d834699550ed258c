//! A client's configuration entry for this server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Client, SERVER};

/// MCP transport between client and server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerTransport {
    /// The client spawns this program and uses stdin and stdout.
    Stdio {
        /// Absolute path of the program.
        command: String,
        arguments: Vec<String>,
    },
    /// The client connects to a running server.
    Http { url: String, token: TokenReference },
}

/// Where the client finds its bearer token. The entry never contains the token itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenReference {
    /// The client sends none.
    Unset,
    /// In an environment variable of the client.
    Variable(String),
    /// In the first line of a file. Only Claude Code can read one.
    File(String),
}

/// Builds the entry in the client's format.
#[must_use]
pub fn build_entry(client: Client, transport: &ServerTransport) -> Value {
    match transport {
        ServerTransport::Stdio { command, arguments } => {
            json!({ "type": "stdio", "command": command, "args": arguments })
        }
        ServerTransport::Http { url, token } => {
            let mut entry = Map::new();
            // Cursor derives the transport from `url`.
            match client {
                Client::Claude | Client::Vscode => drop(entry.insert("type".to_owned(), json!("http"))),
                Client::Cursor => {}
            }
            entry.insert("url".to_owned(), json!(url));
            match token {
                TokenReference::Unset => {}
                TokenReference::Variable(variable) => {
                    let token = format!("Bearer {}", reference(client, variable));
                    entry.insert("headers".to_owned(), json!({ "Authorization": token }));
                }
                TokenReference::File(file) => {
                    entry.insert("headersHelper".to_owned(), headers_helper(file).into());
                }
            }
            Value::Object(entry)
        }
    }
}

/// Returns a shell command that prints the headers as JSON
/// (<https://code.claude.com/docs/en/mcp>, "Use dynamic headers for custom authentication").
fn headers_helper(file: &str) -> String {
    let file = file.replace('\'', "'\\''");
    format!(r#"printf '{{"Authorization": "Bearer %s"}}' "$(head -n 1 '{file}')""#)
}

/// Returns the client's syntax for an environment variable.
fn reference(client: Client, variable: &str) -> String {
    match client {
        // https://code.claude.com/docs/en/mcp, "Environment variable expansion"
        Client::Claude => format!("${{{variable}}}"),
        // https://cursor.com/docs/mcp, "Config interpolation"; VS Code's variables reference.
        Client::Cursor | Client::Vscode => format!("${{env:{variable}}}"),
    }
}

/// Returns a link that makes Cursor offer to install the server
/// (<https://cursor.com/docs/mcp/install-links>).
#[must_use]
pub fn cursor_link(entry: &Value) -> String {
    let config = STANDARD.encode(entry.to_string());
    // Escape the base64 characters that are special in a query string.
    let config = config.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("cursor://anysphere.cursor-deeplink/mcp/install?name={SERVER}&config={config}")
}

/// Describes an entry in one line, without possible secrets such as header values.
#[must_use]
pub fn describe_entry(entry: &Value) -> String {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    if let Some(url) = text("url") {
        // The query may contain a token.
        return url.split(['?', '#']).next().unwrap_or_default().to_owned();
    }
    let Some(command) = text("command") else { return "an entry without `command` and `url`".to_owned() };
    let arguments = entry.get("args").and_then(Value::as_array).into_iter().flatten();
    let words = std::iter::once(command).chain(arguments.filter_map(Value::as_str));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_reference_uses_client_syntax() {
        let reach = ServerTransport::Http {
            url: "https://orchestrator.example.com/mcp".to_owned(),
            token: TokenReference::Variable("TEAM_TOKEN".to_owned()),
        };
        let header = |client| build_entry(client, &reach)["headers"]["Authorization"].clone();
        assert_eq!(header(Client::Claude), "Bearer ${TEAM_TOKEN}");
        assert_eq!(header(Client::Cursor), "Bearer ${env:TEAM_TOKEN}");
        assert_eq!(header(Client::Vscode), "Bearer ${env:TEAM_TOKEN}");
        assert_eq!(build_entry(Client::Claude, &reach)["type"], "http");
        assert!(build_entry(Client::Cursor, &reach).get("type").is_none());
    }

    #[test]
    fn token_file_is_read_by_command_without_injection() {
        let helper = |file: &str| {
            let token = TokenReference::File(file.to_owned());
            let reach = ServerTransport::Http { url: "http://127.0.0.1:8750/mcp".to_owned(), token };
            let entry = build_entry(Client::Claude, &reach);
            assert!(entry.get("headers").is_none(), "{entry}");
            entry["headersHelper"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            helper("/home/me/.config/orchestrator/serve-token"),
            r#"printf '{"Authorization": "Bearer %s"}' "$(head -n 1 '/home/me/.config/orchestrator/serve-token')""#
        );
        assert!(helper("/home/o'neil; $(id)/x").ends_with(r#"'/home/o'\''neil; $(id)/x')""#));
    }

    #[test]
    fn replaced_entry_description_hides_secrets() {
        let entry = json!({
            "command": "npx", "args": ["-y", "server"], "env": { "KEY": "sk-secret" },
        });
        assert_eq!(describe_entry(&entry), "npx -y server");
        let entry = json!({ "url": "https://x/mcp?token=secret", "headers": { "Authorization": "secret" } });
        assert_eq!(describe_entry(&entry), "https://x/mcp");
    }
}
