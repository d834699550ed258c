//! Third-party clients list and call everything, over stdio and HTTP, in both protocol eras.

use orchestrator_tests::binaries::Binaries;
use orchestrator_tests::dispatcher_env::{DispatcherEnv, ServeProcess};
use orchestrator_tests::mcp_tools::{NodeClients, with_python};
use serde_json::{Value, json};

const RUN: &str = "trader-claude-agent-1-task1-attempt1";

const TOOLS: [&str; 8] = [
    "submit_implementation_task",
    "init_docs",
    "get_task_status",
    "list_tasks",
    "get_task_logs",
    "get_task_diff",
    "wait_for_task",
    "stop_task",
];

/// A docs run of a service that no other call uses.
fn documentation() -> Value {
    json!({
        "task_id": 5, "service": "auth", "force": true, "working_directory": "auth",
        "platform_repository_url": "https://github.com/myorg/platform",
    })
}

const DOCUMENTATION: &str = "**Documentation submitted: documents of task 5 of the auth service.**";

/// Returns the names in a list of tools, prompts or resources.
fn names<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let entries = list.as_array().into_iter().flatten();
    entries.filter_map(|entry| entry[field].as_str()).collect()
}

/// Requests everything that a server offers with the Python client.
fn python_asks_everything(era: &str, protocol: &str, server: &Value) {
    let call = |tool: &str, arguments: Value| json!(["call_tool", {"name": tool, "arguments": arguments}]);
    let log = format!("orchestrator://runs/{RUN}/log");
    let reported = with_python(
        &[era],
        server,
        &json!([
            ["list_tools", {}],
            ["list_prompts", {}],
            ["list_resource_templates", {}],
            call("submit_implementation_task", DispatcherEnv::submission("trader", 1)),
            call("wait_for_task", json!({"run": RUN, "timeout_seconds": 1})),
            call("get_task_status", json!({})),
            call("list_tasks", json!({"service": "trader"})),
            call("get_task_logs", json!({"task_id": "1"})),
            call("stop_task", json!({"run": RUN})),
            call("wait_for_task", json!({"timeout_seconds": 20})),
            call("get_task_status", json!({"run": "latest"})),
            ["list_resources", {}],
            ["read_resource", {"uri": log}],
            ["get_prompt", {"name": "submit", "arguments": {"service": "trader", "task_id": "2"}}],
            ["complete", {"ref": {"type": "ref/prompt", "name": "submit"}, "argument": {"name": "service", "value": "tr"}}],
            call("get_task_status", json!({"run": "no-such-run"})),
            call("get_task_status", json!({"no_such_argument": 1})),
            ["read_resource", {"uri": "orchestrator://runs/no/such"}],
            call("init_docs", documentation()),
        ]),
    );
    assert_eq!(
        (&reported["protocol"], &reported["server"]["name"]),
        (&json!(protocol), &json!("orchestrator"))
    );
    let steps = reported["steps"].as_array().unwrap();
    let result = |index: usize| {
        assert!(steps[index]["result"].is_object(), "step {index}: {:#}", steps[index]);
        &steps[index]["result"]
    };
    let text = |index: usize| {
        assert_eq!(result(index)["isError"], json!(false), "step {index}: {:#}", steps[index]);
        result(index)["content"][0]["text"].as_str().unwrap()
    };
    let tools = names(&result(0)["tools"], "name");
    assert!(TOOLS.iter().all(|tool| tools.contains(tool)), "{tools:?}");
    assert_eq!(names(&result(1)["prompts"], "name").len(), 4, "{:#}", steps[1]);
    assert!(!names(&result(2)["resourceTemplates"], "uriTemplate").is_empty(), "{:#}", steps[2]);
    assert!(text(3).contains(RUN), "{}", text(3));
    assert!(text(4).contains("still running") || text(4).contains("Running"), "{}", text(4));
    assert!(
        !steps[4]["progress"].as_array().unwrap().is_empty(),
        "the wait reports progress: {:#}",
        steps[4]
    );
    assert!(text(5).contains("Running"), "{}", text(5));
    assert!(text(6).contains(RUN), "{}", text(6));
    assert!(text(7).contains("edits src/lib.rs"), "{}", text(7));
    assert!(text(8).contains(RUN), "{}", text(8));
    assert!(text(9).contains("Stopped"), "{}", text(9));
    assert!(text(10).contains("Stopped"), "{}", text(10));
    assert!(names(&result(11)["resources"], "uri").contains(&log.as_str()), "{:#}", steps[11]);
    assert!(
        result(12)["contents"][0]["text"].as_str().unwrap().contains("edits src/lib.rs"),
        "{:#}",
        steps[12]
    );
    let prompt = result(13)["messages"][0]["content"]["text"].as_str().unwrap();
    assert!(prompt.contains("trader") && prompt.contains('2'), "{prompt}");
    assert_eq!(result(14)["completion"]["values"], json!(["trader"]));
    assert_eq!(result(15)["isError"], json!(true));
    assert!(result(15)["content"][0]["text"].as_str().unwrap().contains("no-such-run"), "{:#}", steps[15]);
    // A wrong argument is reported, in either form.
    assert!(steps[16].to_string().contains("no_such_argument"), "{:#}", steps[16]);
    assert!(steps[17]["error"].is_string(), "{:#}", steps[17]);
    assert!(text(18).contains(DOCUMENTATION), "{}", text(18));
}

#[test]
fn python_client_speaks_latest_revision_over_stdio() {
    let env = DispatcherEnv::new("held");
    python_asks_everything("auto", "2026-07-28", &env.stdio());
}

#[test]
fn python_client_speaks_older_revision_over_stdio() {
    let env = DispatcherEnv::new("held");
    python_asks_everything("legacy", "2025-11-25", &env.stdio());
}

#[test]
fn python_client_speaks_both_revisions_over_http() {
    for (era, protocol) in [("auto", "2026-07-28"), ("legacy", "2025-11-25")] {
        let env = DispatcherEnv::new("held");
        let served = env.serve();
        python_asks_everything(era, protocol, &served.connection());
    }
}

/// The Inspector's transport.
enum To<'a> {
    Stdio,
    Http(&'a ServeProcess),
}

/// Calls a method with the Inspector's command line and returns its output.
#[track_caller]
fn inspect(env: &DispatcherEnv, to: &To<'_>, era: &str, method: &str, more: &[&str]) -> Value {
    let clients = NodeClients::get();
    let mut inspector = clients.command(&clients.inspector);
    inspector.env_clear().envs(env.environment()).current_dir(env.path("open"));
    match to {
        To::Stdio => inspector.arg(&Binaries::get().dispatcher).arg("mcp"),
        To::Http(served) => {
            let header = format!("Authorization: Bearer {}", served.token);
            inspector.args([&served.url, "--transport", "http", "--header", &header])
        }
    };
    // The server gets only the variables that are passed by name.
    if matches!(to, To::Stdio) {
        for (name, value) in env.environment() {
            inspector.arg("-e").arg(format!("{name}={value}"));
        }
    }
    inspector.args(["--protocol-era", era, "--format", "json", "--quiet", "--method", method]).args(more);
    let output = inspector.output().unwrap();
    assert!(output.status.success(), "{method}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{method}: {output:?}"))
}

/// Requests everything that the Inspector supports.
fn inspector_asks_everything(env: &DispatcherEnv, to: &To<'_>, era: &str) {
    let ask = |method: &str, more: &[&str]| inspect(env, to, era, method, more);
    let call = |tool: &str, arguments: Value| {
        let arguments = arguments.to_string();
        let answer = ask("tools/call", &["--tool-name", tool, "--tool-args-json", &arguments]);
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{tool}: {answer:#}")).to_owned()
    };
    // Strict: a schema that some client cannot read is an error.
    let list = ask("tools/list", &["--strict"]);
    let tools = names(&list["result"]["tools"], "name");
    assert!(TOOLS.iter().all(|tool| tools.contains(tool)), "{list:#}");
    assert_eq!(names(&ask("prompts/list", &[])["result"]["prompts"], "name").len(), 4);
    let templates = ask("resources/templates/list", &[]);
    assert!(!names(&templates["result"]["resourceTemplates"], "uriTemplate").is_empty(), "{templates:#}");
    assert!(call("submit_implementation_task", DispatcherEnv::submission("trader", 1)).contains(RUN));
    assert!(call("get_task_status", json!({})).contains(RUN));
    assert!(call("list_tasks", json!({})).contains(RUN));
    assert!(call("get_task_logs", json!({"run": RUN})).contains("edits src/lib.rs"));
    assert!(call("stop_task", json!({"service": "trader"})).contains(RUN));
    assert!(call("wait_for_task", json!({"run": RUN, "timeout_seconds": 20})).contains("Stopped"));
    assert!(call("init_docs", documentation()).contains(DOCUMENTATION));
    let log = format!("orchestrator://runs/{RUN}/log");
    let resources = ask("resources/list", &[]);
    assert!(names(&resources["result"]["resources"], "uri").contains(&log.as_str()), "{resources:#}");
    assert!(ask("resources/read", &["--uri", &log]).to_string().contains("edits src/lib.rs"));
    let prompt = ask("prompts/get", &["--prompt-name", "status_report", "--prompt-args", "service=trader"]);
    assert!(prompt.to_string().contains("of the trader service"), "{prompt:#}");
}

#[test]
fn inspector_speaks_both_eras_over_stdio() {
    for era in ["legacy", "modern"] {
        let env = DispatcherEnv::new("held");
        inspector_asks_everything(&env, &To::Stdio, era);
    }
}

#[test]
fn inspector_speaks_both_eras_over_http() {
    for era in ["legacy", "modern"] {
        let env = DispatcherEnv::new("held");
        let served = env.serve();
        inspector_asks_everything(&env, &To::Http(&served), era);
    }
}
