//! One pod, from binding to deletion.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use super::environment::{Mounts, Waiting, expand, variables};
use super::logs::Log;
use super::process::{Group, MARKER};
use super::status::{Report, now, publish_status};
use super::volumes::{Objects, mount};
use super::{Disruption, Fault, Inner, PAUSE, Running, has_ended, is_going, items, lock, name_of, text};

/// Maximum bytes of a termination message.
const MESSAGE: usize = 4096;

/// Maximum bytes of the log as a termination message.
const LOG_AS_MESSAGE: usize = 2048;

/// Timeout for the rest of the output after the program exits.
const PIPES: Duration = Duration::from_secs(2);

/// Interval at which descendants are recorded, see [`Group::look`].
const LOOK: Duration = Duration::from_millis(200);

/// The pod on the API server; `None` after its deletion.
type News = watch::Receiver<Option<Arc<Value>>>;

/// A program to be spawned.
struct Prepared {
    program: PathBuf,
    arguments: Vec<String>,
    variables: BTreeMap<String, String>,
    folder: PathBuf,
    message: PathBuf,
    /// Directories of the pod's volumes.
    folders: Vec<PathBuf>,
}

/// Runs a pod until it is deleted.
pub(super) async fn run_pod(inner: Arc<Inner>, mut news: News) {
    let Some(pod) = news.borrow_and_update().clone() else { return };
    if !has_ended(&pod)
        && let Some(report) = run(&inner, &pod, &mut news).await
    {
        publish_status(&inner, &pod, &report).await;
    }
    // A deleted pod stays until the node confirms that it has stopped.
    if news.wait_for(|pod| pod.as_ref().is_none_or(|pod| is_going(pod))).await.is_ok() {
        let there = news.borrow().is_some();
        if there {
            consent(&inner, &pod).await;
        }
    }
    // The pod's volumes are deleted with it.
    std::fs::remove_dir_all(inner.pod_folder(text(&pod, "/metadata/uid"))).ok();
}

/// Spawns the pod's program and waits for its exit; returns `None` if the pod was deleted before.
async fn run(inner: &Arc<Inner>, pod: &Arc<Value>, news: &mut News) -> Option<Report> {
    let container = &pod["spec"]["containers"][0];
    let mut reported = None;
    let prepared = loop {
        let current = news.borrow_and_update().clone()?;
        if is_going(&current) {
            let waiting = Report::waiting("ContainerCreating", "");
            return Some(Report { phase: "Failed", ..waiting });
        }
        match prepare(inner, &current, container).await {
            Ok(prepared) => break prepared,
            Err(waiting) => {
                if reported.as_ref() != Some(&waiting) {
                    publish_status(inner, pod, &Report::waiting(waiting.reason, &waiting.message)).await;
                } else if waiting.reason == "ErrImagePull" {
                    let message = format!("Back-off pulling image {}", container["image"]);
                    publish_status(inner, pod, &Report::waiting("ImagePullBackOff", &message)).await;
                    reported = Some(Waiting { reason: "ImagePullBackOff", message });
                    wait_for_repair(inner, pod, news).await;
                    continue;
                }
                reported = Some(waiting);
                tokio::time::timeout(PAUSE, news.changed()).await.ok();
            }
        }
    };
    let name = text(container, "/name");
    let log = inner.logs.begin(name_of(pod), name);
    let started = now();
    let mut child = match start(&prepared) {
        Ok(child) => child,
        Err(error) => {
            log.end();
            let message = format!("exec: {:?}: {error}", prepared.program);
            let terminated = json!({"exitCode": 128, "reason": "StartError", "message": message, "startedAt": started, "finishedAt": now()});
            return Some(Report {
                phase: "Failed",
                reason: None,
                state: json!({"terminated": terminated}),
                disruption: None,
            });
        }
    };
    let uid = text(pod, "/metadata/uid");
    let pid = child.id().expect("it was not waited for");
    let group = Group::of(pid, uid, prepared.folders.clone());
    let (blow, struck) = watch::channel(None);
    lock(&inner.running).insert(name_of(pod), Running { group: group.clone(), blow });
    if inner.over.load(Ordering::SeqCst) {
        group.kill();
    }
    let output = [
        tokio::spawn(Arc::clone(&log).read(child.stdout.take().expect("a pipe"))),
        tokio::spawn(Arc::clone(&log).read(child.stderr.take().expect("a pipe"))),
    ];
    // Runs in the background, because the API server may be unreachable.
    let (telling, about, report) = (Arc::clone(inner), Arc::clone(pod), Report::running(&started));
    let reported = tokio::spawn(async move { publish_status(&telling, &about, &report).await });
    let end = wait_for_end(pod, news, &mut child, &group).await;
    group.kill_rest();
    for output in output {
        // A process that left the group may hold the pipe open.
        tokio::time::timeout(PIPES, output).await.ok();
    }
    log.end();
    lock(&inner.running).remove(&name_of(pod));
    let struck = *struck.borrow();
    // The final status must arrive last.
    reported.await.ok();
    Some(report_end(container, &prepared, &end, struck, &started, &log))
}

/// Waits until an injected pull error is cleared.
async fn wait_for_repair(inner: &Arc<Inner>, pod: &Value, news: &mut News) {
    loop {
        let going = news.borrow().as_ref().is_none_or(|pod| is_going(pod));
        let image = text(pod, "/spec/containers/0/image");
        let named = !pod["spec"]["containers"][0]["command"].is_null() || inner.program_of(image).is_some();
        if going || named && inner.fault_of(pod) != Some(Fault::ImagePull) {
            return;
        }
        tokio::time::timeout(PAUSE, news.changed()).await.ok();
    }
}

async fn prepare(inner: &Arc<Inner>, pod: &Value, container: &Value) -> Result<Prepared, Waiting> {
    let image = text(container, "/image");
    let refuses = |why: &str| Waiting {
        reason: "ErrImagePull",
        message: format!("failed to pull image \"{image}\": {why}"),
    };
    if inner.fault_of(pod) == Some(Fault::ImagePull) {
        return Err(refuses("not found"));
    }
    inner.connected().await;
    let objects = Objects::fetch(inner, pod)
        .await
        .map_err(|error| Waiting { reason: "ContainerCreating", message: error.to_string() })?;
    let variables = variables(pod, container, &objects)?;
    let words = |field: &str| -> Vec<String> {
        items(container, field).map(|it| expand(it.as_str().unwrap_or_default(), &variables)).collect()
    };
    let mut command = words("/command").into_iter();
    let program = match command.next() {
        Some(program) => Some(PathBuf::from(program)),
        None => inner.program_of(image),
    };
    let program = program.ok_or_else(|| refuses("the node knows no program for it"))?;
    let mounts = mount(inner, pod, container, &objects).await?;
    let arguments = command.chain(words("/args")).map(|word| mounts.translate(&word)).collect();
    let message = mounts.path(text(container, "/terminationMessagePath"));
    let folder = match text(container, "/workingDir") {
        "" => inner.pod_folder(text(pod, "/metadata/uid")),
        folder => mounts.path(folder),
    };
    let program = mounts.path(program.to_str().expect("a path in UTF-8"));
    let mut folders = mounts.below(inner.folder());
    folders.push(inner.pod_folder(text(pod, "/metadata/uid")));
    let variables = translated(pod, variables, &mounts);
    Ok(Prepared { program, arguments, variables, folder, message, folders })
}

fn translated(pod: &Value, variables: BTreeMap<String, String>, mounts: &Mounts) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("HOSTNAME".to_owned(), text(pod, "/metadata/name").to_owned()),
        (MARKER.to_owned(), text(pod, "/metadata/uid").to_owned()),
        // The directories of programs on this machine; an image would contain them.
        ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
    ]);
    all.extend(variables.into_iter().map(|(name, value)| (name, mounts.translate(&value))));
    all
}

fn start(prepared: &Prepared) -> std::io::Result<Child> {
    Command::new(&prepared.program)
        .args(&prepared.arguments)
        .env_clear()
        .envs(&prepared.variables)
        .current_dir(&prepared.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// How a program exited.
struct End {
    status: ExitStatus,
    /// Whether the pod's own deadline had passed.
    late: bool,
}

/// Waits for the program; terminates and then kills it when the pod is deleted.
async fn wait_for_end(pod: &Value, news: &mut News, child: &mut Child, group: &Group) -> End {
    let limit = pod["spec"]["activeDeadlineSeconds"].as_u64();
    let deadline = limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut kill_at: Option<Instant> = None;
    let mut late = false;
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let at = |when: Option<Instant>| async move {
            match when {
                Some(when) => tokio::time::sleep_until(when).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => return End { status: status.expect("our own child"), late },
            _ = looks.tick() => group.look(),
            () = at(kill_at) => {
                group.kill();
                kill_at = None;
            }
            () = at(deadline.filter(|_| !late)) => {
                late = true;
                group.terminate();
                kill_at = Some(Instant::now() + grace(pod));
            }
            changed = news.changed() => {
                let current = news.borrow_and_update().clone().filter(|_| changed.is_ok());
                match current {
                    // A forced deletion skips the grace period.
                    None => group.kill(),
                    Some(current) if is_going(&current) => {
                        let deadline = Instant::now() + grace(&current);
                        if kill_at.is_none() {
                            group.terminate();
                        }
                        kill_at = Some(kill_at.map_or(deadline, |before| before.min(deadline)));
                    }
                    Some(_) => {}
                }
            }
        }
        if news.has_changed().is_err() {
            // The node stops and kills its programs.
            group.kill();
            let status = child.wait().await.expect("our own child");
            return End { status, late };
        }
    }
}

fn grace(pod: &Value) -> Duration {
    let requested = pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
    let seconds = requested.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30);
    Duration::from_secs(seconds)
}

fn report_end(
    container: &Value,
    prepared: &Prepared,
    end: &End,
    struck: Option<Disruption>,
    started: &str,
    log: &Log,
) -> Report {
    // As a container runtime reports it.
    let code = end.status.code().unwrap_or_else(|| 128 + end.status.signal().unwrap_or(0));
    let mut message = std::fs::read(&prepared.message).unwrap_or_default();
    message.truncate(MESSAGE);
    let mut message = String::from_utf8_lossy(&message).into_owned();
    if message.is_empty()
        && code != 0
        && text(container, "/terminationMessagePolicy") == "FallbackToLogsOnError"
    {
        message = log.tail(LOG_AS_MESSAGE);
    }
    let reason = match (struck, code) {
        (Some(Disruption::OomKill), _) => "OOMKilled",
        (_, 0) => "Completed",
        _ => "Error",
    };
    let mut terminated =
        json!({"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()});
    if !message.is_empty() {
        terminated["message"] = json!(message);
    }
    let evicted = (struck == Some(Disruption::Evict))
        .then(|| ("Evicted", "The node was low on resource: memory.".to_owned()));
    let late = end.late.then(|| {
        ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline".to_owned())
    });
    let failed = code != 0 || evicted.is_some() || late.is_some();
    Report {
        phase: if failed { "Failed" } else { "Succeeded" },
        disruption: evicted.as_ref().map(|_| "TerminationByKubelet"),
        reason: evicted.or(late),
        state: json!({"terminated": terminated}),
    }
}

/// Confirms the deletion of a pod that stopped.
async fn consent(inner: &Arc<Inner>, pod: &Value) {
    let pods: Api<Pod> = Api::namespaced(inner.client.clone(), text(pod, "/metadata/namespace"));
    let meant = Preconditions { uid: Some(text(pod, "/metadata/uid").to_owned()), resource_version: None };
    let now = DeleteParams::default().grace_period(0).preconditions(meant);
    loop {
        inner.connected().await;
        match pods.delete(text(pod, "/metadata/name"), &now).await {
            // Deleted, or replaced by another pod of the same name.
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
