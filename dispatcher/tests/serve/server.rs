//! The `dispatcher serve` program.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::bench::{Bench, eventually};
use super::http::{Answer, Request, TOKEN};

/// A server process, killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) address: SocketAddr,
}

/// Creates a bench with a known repository for every service, so that calls need no open directory.
pub(crate) fn bench() -> Bench {
    let bench = Bench::new();
    let toml = r#"
        [defaults]
        platform_repository_url = "https://github.com/myorg/platform"
        [services.trader]
        repository_url = "https://github.com/myorg/trader"
    "#;
    std::fs::write(bench.path("open/orchestrator.toml"), toml).unwrap();
    bench
}

impl Server {
    /// Serves on a free port; its runs continue until they are stopped.
    pub(crate) fn start(bench: &Bench) -> Self {
        let mut command = bench.command("serve --address 127.0.0.1:0");
        command.env("ORCHESTRATOR_TEST_END", "held");
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.env("ORCHESTRATOR_SERVE_TOKEN", TOKEN);
        Self::spawn_as_given(command)
    }

    /// Like [`Self::spawn`], with the tokens that the command itself names.
    pub(crate) fn spawn_as_given(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut address = None;
        eventually("the server to listen", || {
            let log = lines.lock().unwrap().clone();
            let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            address = events
                .filter(|event| event["message"] == "listening")
                .find_map(|event| event["address"].as_str()?.parse().ok());
            assert!(address.is_some() || child.try_wait().unwrap().is_none(), "{log:?}");
            address.is_some()
        });
        Self { child, lines, address: address.unwrap() }
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Returns the calls in the audit log so far.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let events = self.lines.lock().unwrap().clone();
        let events = events.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["target"] == "audit" && event["message"] == "call").collect()
    }

    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Answer {
        Request::tool(tool, arguments).send(self.address)
    }

    /// Submits a task of the trader service and returns the structured result.
    pub(crate) fn submit(&self, task: usize) -> Value {
        submission(task).send(self.address).json()["result"].clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the server to exit and returns its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the server to exit", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn submission(task: usize) -> Request {
    let arguments = json!({ "task_id": task, "service": "trader", "guidance": "hush-hush" });
    Request::tool("submit_implementation_task", &arguments)
}
