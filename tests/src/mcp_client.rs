//! A minimal MCP client for load tests and benchmarks: JSON lines over stdio, 2025-11-25 handshake.
//! / Conformance is tested with third-party clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A server process and the connection to it; killed when dropped.
pub struct McpClient {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    id: u64,
}

impl McpClient {
    /// Starts the server and initializes the connection.
    pub fn start(mut server: Command) -> Self {
        server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = server.spawn().expect("a server that starts");
        let input = child.stdin.take().expect("stdin was piped");
        let output = BufReader::new(child.stdout.take().expect("stdout was piped"));
        let mut client = Self { child, input, output, id: 0 };
        let who = json!({"name": "tests", "version": "1"});
        client.request(
            "initialize",
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": who}),
        );
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    /// Returns the process ID of the server.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Calls a method and returns its result.
    ///
    /// # Panics
    ///
    /// Panics on a protocol error or a missing response.
    #[track_caller]
    pub fn request(&mut self, method: &str, parameters: Value) -> Value {
        self.id += 1;
        let id = self.id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}));
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).expect("an answer");
            let mut message: Value =
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("{method}: no message: {line:?}"));
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    /// Calls a tool and returns its text.
    ///
    /// # Panics
    ///
    /// Panics if the tool fails.
    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments}));
        assert_ne!(result["isError"], true, "{tool}: {result:#}");
        result["content"][0]["text"].as_str().expect("a text").to_owned()
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.input, "{message}").expect("the server reads");
    }
}

impl Drop for McpClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
