//! The `dispatcher serve` program: load, audit log, signals.

use std::io::Write as _;

use rustix::process::Signal;
use serde_json::json;

use super::bench::{Bench, eventually};
use super::http::{Request, TOKEN, connect, read};
use super::server::{Server, bench, submission};

const RUN: &str = "trader-claude-agent-1-task1-attempt1";

#[test]
fn arguments_that_are_no_object_are_read_over_http() {
    let bench = bench();
    let server = Server::start(&bench);
    for arguments in [json!([]), json!(null), json!(""), json!({ "limit": "5" })] {
        for request in
            [Request::tool("list_tasks", &arguments), Request::modern_tool("list_tasks", &arguments)]
        {
            let answer = request.send(server.address);
            assert_eq!(answer.json()["result"]["isError"], false, "{arguments}: {answer:?}");
        }
    }
    let refused = Request::tool("list_tasks", &json!(["x"])).send(server.address).json();
    assert_eq!(refused["result"]["isError"], true, "{refused}");
}

#[test]
fn hundred_identical_submissions_create_one_run() {
    let bench = bench();
    let server = Server::start(&bench);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let submit = |_| scope.spawn(|| server.submit(1)["structuredContent"]["result"].to_string());
        let all: Vec<_> = (0..100).map(submit).collect();
        all.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let count = |started: &str| answers.iter().filter(|answer| *answer == started).count();
    assert_eq!((count("\"created\""), count("\"already_running\"")), (1, 99), "{answers:?}");
    assert_eq!(bench.runs().len(), 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!("a hundred concurrent submissions: {peak}");
}

#[test]
fn audit_log_names_caller_without_token_or_guidance() {
    let bench = bench();
    let mut command = bench.command("serve --address localhost:0");
    command.env("ORCHESTRATOR_TEST_END", "held");
    command.env("ORCHESTRATOR_LOG", "trace,rmcp::transport=trace,rmcp::service=trace,hyper=trace");
    let server = Server::spawn(command);
    assert_eq!(submission(1).without("Authorization").send(server.address).status, 401);
    assert_eq!(submission(1).send(server.address).status, 200);
    let lost = Request::tool("get_task_status", &json!({ "run": "no-such-run" }));
    assert_eq!(lost.send(server.address).status, 200);
    eventually("three audited calls", || server.calls().len() == 3);
    let calls = server.calls();
    let reported = |at: usize, fields: [&str; 5]| fields.map(|field| calls[at][field].to_string());
    let fields = ["identity", "tool", "run", "status", "result"];
    let submit = "\"submit_implementation_task\"";
    assert_eq!(reported(0, fields), ["\"-\"", "\"-\"", "\"-\"", "401", "\"refused\""]);
    assert_eq!(reported(1, fields), ["\"bearer\"", submit, &format!("\"{RUN}\""), "200", "\"ok\""]);
    assert_eq!(reported(2, fields)[1..3], ["\"get_task_status\"", "\"no-such-run\""]);
    assert_eq!(
        (calls[2]["result"].as_str(), calls[2]["method"].as_str()),
        (Some("error"), Some("tools/call"))
    );
    for call in &calls {
        assert!(call["client"].as_str().unwrap().starts_with("127.0.0.1:") && call["ms"].is_u64(), "{call}");
        assert!(call["timestamp"].is_string(), "{call}");
    }
    let log = server.log();
    assert!(!log.contains(TOKEN) && !log.contains("hush-hush"), "{log}");
    let names = || std::fs::read_to_string(bench.run_file(RUN, "environment.txt")).unwrap_or_default();
    eventually("the supervisor to write its environment down", || names().contains("\nPATH\n"));
    let names = names();
    assert!(!names.contains("ORCHESTRATOR_SERVE"), "{names}");
}

/// Every process of the machine can connect, also one in an agent's sandbox.
#[test]
fn server_without_configured_token_creates_private_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench();
    let file = bench.path("home/.config/orchestrator/serve-token");
    let serve = || {
        let mut command = bench.command("serve --address 127.0.0.1:0");
        command.env("ORCHESTRATOR_TEST_END", "held");
        Server::spawn_as_given(command)
    };
    let server = serve();
    let call = |token: &str| {
        let bearer = format!("Bearer {}", token.trim());
        submission(1).replacing("Authorization", &bearer).send(server.address)
    };
    let refused = submission(1).without("Authorization").send(server.address);
    assert!(refused.status == 401 && refused.body.contains("hint: "), "{refused:?}");
    assert!(!refused.body.contains(bench.path("home").to_str().unwrap()), "{refused:?}");
    assert_eq!((call("").status, call(TOKEN).status), (401, 401));
    assert_eq!(bench.runs().len(), 0);
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(server.log().contains(file.to_str().unwrap()) && !server.log().contains(token.trim()));
    assert_eq!(call(&token).status, 200);
    assert_eq!(bench.runs().len(), 1);
    // A restart keeps the token; a new one applies without a restart.
    drop(serve());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    std::fs::write(&file, "another-token-of-good-length").unwrap();
    assert_eq!((call(&token).status, call("another-token-of-good-length").status), (401, 200));
    // Others could have read it.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(call("another-token-of-good-length").status, 503);
    let done = bench.run("serve --address 127.0.0.1:0");
    assert!(done.code == 78 && done.stderr.contains("mode must be 600"), "{done:?}");
}

#[test]
fn remote_call_without_folder_names_needed_arguments() {
    // The server's directory is a clone of the trader's repository, which must not affect callers.
    let bench = Bench::new();
    let server = Server::start(&bench);
    let submit = |arguments| {
        let result = server.call("submit_implementation_task", &arguments).json()["result"].clone();
        (result["isError"] == true, result["content"][0]["text"].as_str().unwrap().to_owned())
    };
    let (failed, text) = submit(json!({ "task_id": 1, "service": "trader" }));
    assert!(failed && text.contains("`repository_url`") && text.contains("no project folder"), "{text}");
    let target = "https://github.com/myorg/trader";
    let (failed, text) = submit(json!({ "task_id": 1, "service": "trader", "repository_url": target }));
    assert!(failed && text.contains("`platform_repository_url`"), "{text}");
    assert!(!text.contains("/srv/git"), "{text}");
    let (failed, text) = submit(json!({
        "task_id": 1, "service": "trader", "repository_url": target, "platform_repository_url": target,
    }));
    assert!(!failed, "{text}");
}

#[test]
fn both_protocol_eras_initialize() {
    let bench = bench();
    let server = Server::start(&bench);
    let client = json!({ "name": "test", "version": "1" });
    let initialize = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize });
    let answer = Request::new(&hello).send(server.address);
    assert_eq!(answer.json()["result"]["serverInfo"]["name"], "orchestrator");
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
    assert!(!answer.head.contains("mcp-session-id"), "{answer:?}");
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
    let legacy = Request::new(&list).with("MCP-Protocol-Version", "2025-11-25").send(server.address).json();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": client,
    });
    let modern = |method: &str| {
        let params = json!({ "_meta": meta });
        Request::new(&json!({ "jsonrpc": "2.0", "id": 3, "method": method, "params": params }))
            .with("MCP-Protocol-Version", "2026-07-28")
            .with("Mcp-Method", method)
            .send(server.address)
            .json()
    };
    let discovered = modern("server/discover");
    assert!(discovered["result"]["capabilities"]["tools"].is_object(), "{discovered}");
    let names = |answer: &serde_json::Value| -> Vec<String> {
        let tools = answer["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let modern = modern("tools/list");
    assert_eq!(names(&legacy), names(&modern));
    assert!(names(&legacy).contains(&"wait_for_task".to_owned()), "{legacy}");
}

#[test]
fn waiting_call_is_answered_at_shutdown() {
    for signal in [Signal::TERM, Signal::INT] {
        let bench = bench();
        let mut command = bench.command("serve --address 127.0.0.1:0");
        command.env("ORCHESTRATOR_TEST_END", "held").env("ORCHESTRATOR_LOG", "debug");
        let mut server = Server::spawn(command);
        server.submit(1);
        let mut waiting = connect(server.address);
        waiting.write_all(&Request::tool("wait_for_task", &json!({ "run": RUN })).bytes()).unwrap();
        let started = "\"method\":\"tools/call\",\"tool\":\"wait_for_task\"";
        eventually("the wait to begin", || server.log().contains(started));
        server.signal(signal);
        let answer = read(&mut waiting);
        assert!(answer.status == 200 && answer.body.contains("the run continues"), "{answer:?}");
        assert_eq!(server.ended(), Some(0));
        assert_eq!(bench.runs()[0]["phase"], "Running");
    }
}

#[test]
fn finished_run_leaves_no_child_process() {
    let bench = bench();
    let server = Server::start(&bench);
    server.submit(1);
    bench.release(RUN);
    let children = format!("/proc/{0}/task/{0}/children", server.id());
    eventually("the supervisor to be reaped", || {
        let ended = bench.runs()[0]["phase"] == "Succeeded";
        ended && std::fs::read_to_string(&children).unwrap().is_empty()
    });
}

#[test]
fn readiness_reflects_ability_to_serve_calls() {
    let bench = bench();
    let server = Server::start(&bench);
    let status = |path| Request::get(path).with("Host", "10.0.0.7:8750").send(server.address).status;
    let both = || (status("GET /healthz HTTP/1.1"), status("GET /readyz HTTP/1.1"));
    assert_eq!(both(), (200, 200));
    std::fs::write(bench.path("open/orchestrator.toml"), "color = 1").unwrap();
    assert_eq!(both(), (200, 503));
    let reported = server.call("list_tasks", &json!({})).json();
    assert!(
        reported["result"]["isError"] == true && reported.to_string().contains("unknown field `color`"),
        "{reported}"
    );
}

#[test]
fn invalid_serve_options_are_rejected_with_hint() {
    let bench = bench();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("serve --address {}", taken.local_addr().unwrap());
    let cases = [
        ("serve --address 0.0.0.0:0", 78, "--token-file FILE"),
        ("serve --address [::]:0", 78, "--token-file FILE"),
        ("serve --token-file nowhere", 78, "open/nowhere"),
        (taken.as_str(), 78, "--address IP:PORT"),
        ("serve --address example.com:80", 64, "127.0.0.1:8750"),
    ];
    for (arguments, code, expected) in cases {
        let done = bench.run(arguments);
        assert_eq!(done.code, code, "{arguments}: {done:?}");
        assert!(done.stderr.contains(expected) && done.stdout.is_empty(), "{arguments}: {done:?}");
    }
}
