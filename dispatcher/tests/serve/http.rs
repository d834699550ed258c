//! A minimal HTTP client that sends the exact bytes of a test.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// Timeout of a response.
const LIMIT: Duration = Duration::from_secs(25);

/// The token of every server.
pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Returns the last JSON message of the response.
    pub(crate) fn json(&self) -> Value {
        let last = self.body.lines().rev().find(|line| line.starts_with('{') || line.starts_with("data: {"));
        let last = last.unwrap_or_else(|| panic!("no message in {self:?}"));
        serde_json::from_str(last.strip_prefix("data: ").unwrap_or(last)).unwrap()
    }
}

/// A request to the MCP endpoint.
pub(crate) struct Request {
    pub(crate) line: &'static str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    /// Creates a request that a server accepts.
    pub(crate) fn new(body: &Value) -> Self {
        Self { line: "POST /mcp HTTP/1.1", headers: Vec::new(), body: body.to_string() }
            .with("Host", "localhost")
            .with("Content-Type", "application/json")
            .with("Accept", "application/json, text/event-stream")
            .with("Connection", "close")
            .with("Authorization", &format!("Bearer {TOKEN}"))
    }

    /// Creates a tool call of the revisions before 2026-07-28.
    pub(crate) fn tool(name: &str, arguments: &Value) -> Self {
        let params = json!({ "name": name, "arguments": arguments });
        Self::new(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
            .with("MCP-Protocol-Version", "2025-11-25")
    }

    /// Creates a tool call of revision 2026-07-28.
    pub(crate) fn modern_tool(name: &str, arguments: &Value) -> Self {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        });
        let params = json!({ "name": name, "arguments": arguments, "_meta": meta });
        Self::new(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
            .with("MCP-Protocol-Version", "2026-07-28")
            .with("Mcp-Method", "tools/call")
            .with("Mcp-Name", name)
    }

    pub(crate) fn get(path: &'static str) -> Self {
        Self { line: path, headers: Vec::new(), body: String::new() }.with("Connection", "close")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn replacing(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if !self.body.is_empty() {
            head.extend(["Content-Length: ", &self.body.len().to_string(), "\r\n"]);
        }
        [head.as_bytes(), b"\r\n", self.body.as_bytes()].concat()
    }

    pub(crate) fn send(&self, to: SocketAddr) -> Answer {
        exchange(to, &self.bytes())
    }
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends bytes and reads until the server closes the connection.
pub(crate) fn exchange(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(to);
    // A server that rejects early may have closed already; its response counts.
    drop(stream.write_all(bytes));
    read(&mut stream)
}

pub(crate) fn read(stream: &mut TcpStream) -> Answer {
    let mut all = Vec::new();
    let ended = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("{ended:?}: no answer but {text:?}") };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Closes a connection with a reset.
pub(crate) fn cut(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream.shutdown(Shutdown::Read));
    drop(stream);
}
