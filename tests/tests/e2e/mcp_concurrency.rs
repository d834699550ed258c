//! Concurrent clients: stdio servers, an HTTP server and the command line on one state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

use orchestrator_tests::dispatcher_env::{DispatcherEnv, peak_memory};
use orchestrator_tests::mcp_client::McpClient;
use orchestrator_tests::mcp_tools::with_python;
use serde_json::{Value, json};

const SUBMIT: &str = "submit_implementation_task";

/// Submissions by transport.
struct Submissions {
    /// One stdio server per element, which receives its submissions one after another.
    stdio: Vec<Vec<Value>>,
    /// One client of the HTTP server per element.
    http: Vec<Value>,
    /// One `dispatcher submit` per element.
    commands: Vec<Value>,
}

/// Sends all submissions concurrently and returns the responses.
#[track_caller]
fn submit(env: &DispatcherEnv, submissions: &Submissions) -> Vec<String> {
    let served = env.serve();
    let ready = Barrier::new(submissions.stdio.len() + submissions.commands.len() + 1);
    let (reported, memory) = std::thread::scope(|scope| {
        let over_stdio = |submissions| {
            let mut client = McpClient::start(env.dispatcher(&["mcp"]));
            ready.wait();
            let reported =
                Vec::from_iter(Vec::<Value>::into_iter(submissions).map(|one| client.call(SUBMIT, one)));
            (reported, peak_memory(client.id()))
        };
        let by_command = |submission: &Value| {
            let mut command = env.dispatcher(&["submit"]);
            for (name, value) in submission.as_object().into_iter().flatten() {
                let flag = if name == "task_id" { "task" } else { name };
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                command.arg(format!("--{}", flag.replace('_', "-"))).arg(value);
            }
            ready.wait();
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            vec![String::from_utf8(output.stdout).unwrap()]
        };
        let stdio: Vec<_> =
            submissions.stdio.iter().cloned().map(|all| scope.spawn(move || over_stdio(all))).collect();
        let commands: Vec<_> =
            submissions.commands.iter().map(|one| scope.spawn(move || by_command(one))).collect();
        let steps: Vec<Value> = submissions
            .http
            .iter()
            .map(|one| json!(["call_tool", {"name": SUBMIT, "arguments": one}]))
            .collect();
        ready.wait();
        let http = with_python(&["auto", "submissions"], &served.connection(), &json!(steps));
        let mut reported: Vec<String> = http["steps"].as_array().unwrap().iter().map(text).collect();
        let mut memory = 0;
        for (lines, peak) in stdio.into_iter().map(|thread| thread.join().unwrap()) {
            reported.extend(lines);
            memory = memory.max(peak);
        }
        reported.extend(commands.into_iter().flat_map(|thread| thread.join().unwrap()));
        (reported, memory)
    });
    println!("peak memory: {memory} KiB over stdio, {} KiB over HTTP", peak_memory(served.id()));
    reported
}

/// Returns the text of a successful call.
#[track_caller]
fn text(step: &Value) -> String {
    assert_eq!(step["result"]["isError"], json!(false), "{step:#}");
    step["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn hundred_identical_submissions_create_one_run() {
    let env = DispatcherEnv::new("held");
    let submission = DispatcherEnv::submission("trader", 1);
    let submissions = Submissions {
        stdio: vec![vec![submission.clone()]; 40],
        http: vec![submission.clone(); 40],
        commands: vec![submission; 20],
    };
    let reported = submit(&env, &submissions);
    assert_eq!(reported.len(), 100);
    let run = "trader-claude-agent-1-task1-attempt1";
    for text in reported {
        assert!(text.contains(run), "{text}");
    }
    let runs = env.runs();
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(runs[0]["run"], run);
}

/// Returns the attempts of each task, from the names of the runs.
fn attempts(env: &DispatcherEnv) -> BTreeMap<String, BTreeSet<u32>> {
    let mut attempts = BTreeMap::<String, BTreeSet<u32>>::new();
    for run in env.runs() {
        let (task, attempt) = run["run"].as_str().unwrap().rsplit_once("-attempt").unwrap();
        let new = attempts.entry(task.to_owned()).or_default().insert(attempt.parse().unwrap());
        assert!(new, "{run} is there twice");
    }
    attempts
}

#[test]
fn two_hundred_distinct_submissions_and_retries_leave_no_gap() {
    let env = DispatcherEnv::new("done");
    let service = |service: usize, tasks: std::ops::RangeInclusive<u32>| {
        tasks.map(|task| DispatcherEnv::submission(&format!("service-{service}"), task)).collect::<Vec<_>>()
    };
    let submissions = Submissions {
        stdio: (0..10).map(|number| service(number, 1..=10)).collect(),
        http: (10..20).flat_map(|number| service(number, 1..=6)).collect(),
        commands: (20..24).flat_map(|number| service(number, 1..=10)).collect(),
    };
    let reported: BTreeSet<String> = submit(&env, &submissions).into_iter().collect();
    assert_eq!(reported.len(), 200, "each got its own run");
    let first = attempts(&env);
    assert_eq!(first.len(), 200);
    assert!(first.values().all(|attempts| *attempts == BTreeSet::from([1])), "{first:#?}");

    // Eight clients request the same retry of five tasks.
    let retries = || (1..=5).map(|task| json!({"service": "service-0", "task_id": task, "retry": true}));
    let submissions = Submissions {
        stdio: vec![retries().collect(); 4],
        http: retries().chain(retries()).chain(retries()).chain(retries()).collect(),
        commands: Vec::new(),
    };
    submit(&env, &submissions);
    for (task, attempts) in attempts(&env) {
        let last = *attempts.last().unwrap();
        assert_eq!(attempts, (1..=last).collect(), "{task}");
        let retried = task.starts_with("service-0-") && !task.ends_with("task10") && last > 1;
        assert!(retried || last == 1, "{task} was tried {last} times");
    }
}
