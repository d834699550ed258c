//! Whatever comes over stdin: only JSON-RPC goes out, and a request that comes after it is answered.

#![no_main]

use std::time::Duration;

use dispatcher::mcp::{Origin, Server, stdio};
use dispatcher::problem::Problem;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const FIRST: &str = r#"{"jsonrpc":"2.0","id":"the first one","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"fuzz","version":"1"}}}"#;

const LAST: &str = r#"{"jsonrpc":"2.0","id":"the last one","method":"tools/list","params":{}}"#;

/// Far longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(20);

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // No state is touched: what is fuzzed is what stands before the tools.
        let server = Server::loading(|| Err(Problem::configuration("there is none here")), Origin::Stdio);
        let (mut to, input) = tokio::io::duplex(64 * 1024);
        let (output, mut from) = tokio::io::duplex(64 * 1024);
        let serving = tokio::spawn(stdio::serve_over(server, input, output));
        let said = [FIRST.as_bytes(), b"\n", data, b"\n", LAST.as_bytes(), b"\n"].concat();
        let writing = tokio::spawn(async move {
            to.write_all(&said).await.expect("the server reads");
            to
        });
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        let answered = async {
            loop {
                let count = from.read(&mut chunk).await.expect("the server answers");
                assert_ne!(count, 0, "the server has gone");
                heard.extend_from_slice(&chunk[..count]);
                let whole = heard.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let lines = heard[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                for line in lines {
                    let message: Value = serde_json::from_slice(line).expect("only messages go out");
                    assert_eq!(message["jsonrpc"], "2.0");
                    if message["id"] == "the last one" {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(LIMIT, answered).await.expect("an answer in time");
        drop(writing.await.expect("everything was read"));
        tokio::time::timeout(LIMIT, serving).await.expect("an end in time").expect("no panic");
    });
});
