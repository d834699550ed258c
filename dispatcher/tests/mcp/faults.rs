//! The MCP server as a program, with faults of its pipes.

use std::io::{BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::json;

use crate::bench::{Bench, eventually};
use crate::program::Program;

#[test]
fn stdio_server_speaks_both_eras_until_input_ends() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.initialize();
    program.answers(1);
    assert_eq!(program.end(), (Some(0), String::new(), String::new()));

    let mut program = Program::start(&bench);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    program
        .say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": { "_meta": meta } }));
    let discovered = program.read();
    assert!(discovered["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{discovered}");
    program.say(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": { "_meta": meta } }));
    let listed = program.read();
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 8);
    assert_eq!(listed["result"]["resultType"], "complete");
    assert_eq!(program.end(), (Some(0), String::new(), String::new()));
}

#[test]
fn invalid_stdio_lines_are_skipped() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.write(b"garbage\n\n\xff\xfe\x00\n{\"jsonrpc\":\n");
    program.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    program.initialize();
    // JSON, but not a message.
    program.write(b"[1, 2]\n");
    assert_eq!(program.read()["error"]["code"], -32600);
    program.write(b"more garbage\n{\"half\": \n");
    program.answers(1);
    program.write(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"tools/li");
    assert_eq!(program.end(), (Some(0), String::new(), String::new()));
}

#[test]
fn endless_stdio_line_uses_bounded_memory() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.initialize();
    program.answers(1);
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        program.write(&chunk);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.child.id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 60 * 1024, "{peak} KiB");
    program.write(b"\n");
    program.answers(2);
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn empty_input_exits_successfully() {
    let bench = Bench::new();
    assert_eq!(Program::start(&bench).end(), (Some(0), String::new(), String::new()));
}

#[test]
fn server_exits_when_client_stops_reading() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.initialize();
    let unread = std::mem::replace(&mut program.output, {
        let mut nothing = bench.command("--version").spawn().unwrap();
        nothing.wait().unwrap();
        BufReader::new(nothing.stdout.take().unwrap())
    });
    drop(unread);
    program.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }));
    let (code, _, stderr) = program.exit();
    assert_eq!((code, stderr), (Some(0), String::new()));
}

#[test]
fn termination_signal_ends_server_with_open_input() {
    let bench = Bench::new();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut program = Program::start(&bench);
        program.initialize();
        program.answers(1);
        let id = rustix::process::Pid::from_child(&program.child);
        rustix::process::kill_process(id, signal).unwrap();
        eventually("the server to exit", || program.child.try_wait().unwrap().is_some());
        let mut rest = String::new();
        program.output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "{signal:?}");
    }
}

#[test]
fn socket_stdio_client_is_served_until_signal() {
    let bench = Bench::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = bench.command("mcp").stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut program = Program { child, output };
    (&ours).write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").unwrap();
    assert_eq!(program.read()["id"], 1);
    let id = rustix::process::Pid::from_child(&program.child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    eventually("the server to exit", || program.child.try_wait().unwrap().is_some());
}

#[test]
fn submitted_run_continues_after_client_disconnects() {
    let bench = Bench::new();
    let mut program = Program::start(&bench);
    program.initialize();
    let arguments = json!({ "task_id": 1, "service": "trader" });
    let call = json!({ "name": "submit_implementation_task", "arguments": arguments });
    program.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call }));
    // The response is not read.
    let (code, rest, _) = program.end();
    assert_eq!(code, Some(0));
    assert!(rest.contains("trader-claude-agent-1-task1-attempt1"), "{rest}");
    assert_eq!(bench.run("wait trader-claude-agent-1-task1-attempt1").code, 0);
}
