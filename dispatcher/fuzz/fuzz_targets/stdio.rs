//! Arbitrary input on stdin: the server writes only JSON-RPC, and answers the next valid request.

#![no_main]

use std::time::Duration;

use dispatcher::error::Error;
use dispatcher::mcp::{Server, TransportKind, stdio};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const FIRST: &str = r#"{"jsonrpc":"2.0","id":"first","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"fuzz","version":"1"}}}"#;

const LAST: &str = r#"{"jsonrpc":"2.0","id":"last","method":"tools/list","params":{}}"#;

/// Far longer than any response takes.
const TIMEOUT: Duration = Duration::from_secs(20);

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // The target is the code in front of the tools, so no tool has a configuration.
        let no_configuration = || Err(Error::configuration("no configuration"));
        let server = Server::loading(no_configuration, TransportKind::Stdio);
        let (mut to, input) = tokio::io::duplex(64 * 1024);
        let (output, mut from) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(stdio::serve_over(server, input, output));
        let lines = [FIRST.as_bytes(), b"\n", data, b"\n", LAST.as_bytes(), b"\n"].concat();
        let writing = tokio::spawn(async move {
            to.write_all(&lines).await.expect("the server reads");
            to
        });
        let mut received = Vec::new();
        let mut chunk = [0; 4096];
        let response = async {
            loop {
                let count = from.read(&mut chunk).await.expect("the server answers");
                assert_ne!(count, 0, "the server closed its output");
                received.extend_from_slice(&chunk[..count]);
                let whole = received.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let lines = received[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                for line in lines {
                    let message: Value = serde_json::from_slice(line).expect("only messages go out");
                    assert_eq!(message["jsonrpc"], "2.0");
                    if message["id"] == "last" {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(TIMEOUT, response).await.expect("a response in time");
        drop(writing.await.expect("everything was read"));
        tokio::time::timeout(TIMEOUT, serving).await.expect("an end in time").expect("no panic");
    });
});
