//! A `dispatcher mcp` process and raw messages to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::bench::{Bench, eventually};

/// A `dispatcher mcp` child process.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) output: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(bench: &Bench) -> Self {
        Self::start_ending(bench, "done")
    }

    /// Starts a server whose runs end with `end`.
    pub(crate) fn start_ending(bench: &Bench, end: &str) -> Self {
        let mut command = bench.command("mcp");
        let mut child = command.env("ORCHESTRATOR_TEST_END", end).stdin(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn initialize(&mut self) {
        let client = json!({ "name": "test", "version": "1" });
        let parameters = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        self.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": parameters }));
        assert_eq!(self.read()["id"], 0);
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    }

    /// Calls a tool with these arguments, whatever they are, and returns the result.
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let call = json!({ "name": tool, "arguments": arguments });
        self.say(&json!({ "jsonrpc": "2.0", "id": "call", "method": "tools/call", "params": call }));
        let mut answer = self.read();
        assert_eq!(answer["id"], "call", "{answer}");
        answer["result"].take()
    }

    pub(crate) fn answers(&mut self, id: u32) {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" }));
        let answer = self.read();
        assert_eq!((&answer["id"], answer["result"]["tools"].as_array().unwrap().len()), (&json!(id), 8));
    }

    /// Closes the input and returns exit code, remaining output, and stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        drop(self.child.stdin.take());
        self.exit()
    }

    pub(crate) fn exit(mut self) -> (Option<i32>, String, String) {
        let mut code = None;
        eventually("the server to exit", || {
            let status = self.child.try_wait().unwrap();
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        let (mut rest, mut stderr) = (String::new(), String::new());
        self.output.read_to_string(&mut rest).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (code, rest, stderr)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
