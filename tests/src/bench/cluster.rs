//! The controller compared with a client that only creates the same Jobs, on a real API server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::json;

use crate::kubernetes::test_cluster::{CONTROLLER, NAMESPACE, TestCluster};
use crate::messages_api::Script;

/// Concurrent requests of the plain client, and concurrent submissions.
const CONCURRENCY: usize = 16;

#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// TaskRuns per second, until their Jobs exist.
    pub runs_a_second: f64,
    /// The same Jobs per second, created by plain requests.
    pub jobs_a_second: f64,
    /// Median time from a submission's response to its Job, in milliseconds.
    pub median: f64,
    /// 99th percentile of the same time.
    pub slowest: f64,
    /// Requests of the controller per run.
    pub requests: f64,
    /// CPU time of the controller per run, in milliseconds.
    pub processor: f64,
    /// Memory of the controller with all runs active, in MiB.
    pub memory: f64,
    /// The same with queued runs.
    pub memory_with_waiting: f64,
    /// Number of queued runs.
    pub waiting: usize,
}

/// Measures `count` runs of one service each, and then `more` queued runs.
/// / Returns `None` without a real API server: the ratio depends on its work.
pub fn measure(count: usize, more: usize) -> Option<Measured> {
    let settings = format!("max_concurrent_runs = {count}");
    let cluster = TestCluster::with(Script::new(), &settings);
    if !cluster.plane.is_real() {
        return None;
    }
    // Both sides create Jobs; the cost of their pods is not measured.
    cluster.plane.end_controllers();
    let controller = cluster.controller();
    cluster.wait_for("leader", || controller.leads().then_some(()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let client = cluster.client();
    let begin = Instant::now();
    let latencies = runtime.block_on(submit_and_wait(&client, count));
    let runs = begin.elapsed();
    let requests = cluster.plane.requests();
    let by_controller =
        requests.iter().filter(|request| request.user == CONTROLLER && !request.path.contains("/leases"));
    let requests = by_controller.count() as f64 / count as f64;
    let process = controller.process().as_raw_nonzero().get();
    let (memory, processor) = (memory(process), processor(process));

    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let templates = runtime.block_on(jobs.list(&ListParams::default())).expect("the Jobs").items;
    runtime.block_on(cluster.plane.namespace("plain"));
    let begin = Instant::now();
    runtime.block_on(post(&client, templates));
    let plain = begin.elapsed();

    runtime.block_on(submit(&client, count..count + more));
    cluster.wait_for("knowledge of all runs", || {
        let listed = controller.metric("orchestrator_queue_length")?;
        (listed as usize >= more).then_some(())
    });
    let memory_with_waiting = self::memory(controller.process().as_raw_nonzero().get());
    let mut sorted = latencies;
    sorted.sort_by(f64::total_cmp);
    Some(Measured {
        runs_a_second: count as f64 / runs.as_secs_f64(),
        jobs_a_second: count as f64 / plain.as_secs_f64(),
        median: sorted[sorted.len() / 2],
        slowest: sorted[sorted.len() * 99 / 100],
        requests,
        processor: processor * 1000.0 / count as f64,
        memory,
        memory_with_waiting,
        waiting: more,
    })
}

fn runs(client: &Client) -> Api<DynamicObject> {
    let kind = kube::core::GroupVersionKind::gvk("orchestrator.io", "v1alpha1", "TaskRun");
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "taskruns"))
}

async fn submit(client: &Client, numbers: std::ops::Range<usize>) -> Vec<(String, Instant)> {
    let api = runs(client);
    let one = |number: usize| {
        let api = api.clone();
        async move {
            let name = format!("bench{number}-claude-agent-1-task1-attempt1");
            let run = json!({
                "apiVersion": "orchestrator.io/v1alpha1", "kind": "TaskRun",
                "metadata": {"name": name, "finalizers": ["orchestrator.io/work"]},
                "spec": {"service": format!("bench{number}"), "taskId": 1, "attempt": 1,
                    "target": {"url": "https://git.example/acme/bench"}, "platform": {"url": "https://git.example/acme/platform"}},
            });
            let run: DynamicObject = serde_json::from_value(run).expect("an object");
            api.create(&PostParams::default(), &run).await.expect("a TaskRun");
            (name, Instant::now())
        }
    };
    stream::iter(numbers).map(one).buffer_unordered(CONCURRENCY).collect().await
}

/// Submits runs and returns the milliseconds from each response to its Job.
async fn submit_and_wait(client: &Client, count: usize) -> Vec<f64> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let seen = async {
        let mut seen: HashMap<String, Instant> = HashMap::new();
        let mut events =
            std::pin::pin!(kube::runtime::watcher(jobs, kube::runtime::watcher::Config::default()));
        while seen.len() < count {
            use kube::runtime::watcher::Event::{Apply, InitApply};
            if let Some(Ok(Apply(job) | InitApply(job))) = events.next().await {
                seen.entry(job.metadata.name.unwrap_or_default()).or_insert_with(Instant::now);
            }
        }
        seen
    };
    let seen = tokio::time::timeout(Duration::from_secs(300), seen);
    let (submitted, seen) = tokio::join!(submit(client, 0..count), seen);
    let seen = seen.expect("all Jobs within five minutes");
    let latency =
        |(name, at): &(String, Instant)| seen[name].saturating_duration_since(*at).as_secs_f64() * 1000.0;
    submitted.iter().map(latency).collect()
}

async fn post(client: &Client, templates: Vec<Job>) {
    let api: Api<Job> = Api::namespaced(client.clone(), "plain");
    let one = |job: Job| {
        let api = api.clone();
        async move {
            let mut plain = Job::default();
            plain.metadata.name = job.metadata.name;
            plain.metadata.labels = job.metadata.labels;
            plain.spec = job.spec;
            // Fields that the server has set.
            if let Some(spec) = &mut plain.spec {
                spec.selector = None;
                if let Some(labels) =
                    spec.template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut())
                {
                    labels.retain(|name, _| !name.contains("controller-uid") && !name.contains("job-name"));
                }
            }
            api.create(&PostParams::default(), &plain).await.expect("a Job");
        }
    };
    stream::iter(templates).map(one).buffer_unordered(CONCURRENCY).collect::<Vec<()>>().await;
}

/// Returns the CPU time of a process, in seconds.
fn processor(process: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a living process");
    // utime and stime, after the name in parentheses; proc_pid_stat(5).
    let fields: Vec<&str> = status.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Returns the resident memory of a process, in MiB.
fn memory(process: i32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a living process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kilobytes / 1024.0
}
