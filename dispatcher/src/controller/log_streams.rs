//! Reads the event streams of pods from their logs, each from its beginning.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::AsyncReadExt as _;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use orchestrator_contract::RunName;
use tracing::debug;

use super::cluster_state::LogStream;
use super::pod::{PodState, observe};
use crate::task::event_fold::{EventFold, LockState, RunSnapshot};
use crate::taskrun::container::CONTAINER;
use crate::taskrun::definition::TaskRun;

/// Maximum bytes to keep of the end of a log.
const TAIL_BYTES: usize = 4 * 1024 * 1024;

/// Minimum time between two requeues of a run because of new events.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);

/// Reconnects after this long without data: a dead connection looks idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long to try to read the log of a terminated container, whose node may be restarting.
const UNREADABLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Maximum time to get a pod.
const GET_TIMEOUT: Duration = Duration::from_secs(30);

/// The log streams, by the UID of their run.
#[derive(Clone, Debug, Default)]
pub struct LogStreams {
    all: Arc<Mutex<HashMap<String, StreamTask>>>,
}

#[derive(Debug)]
struct StreamTask {
    state: Arc<Mutex<StreamState>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct StreamState {
    snapshot: RunSnapshot,
    tail: VecDeque<u8>,
    closed: bool,
}

/// Location of the log of a run, and where to report new events.
#[derive(Clone)]
pub struct LogSource {
    pub client: Client,
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    pub run: RunName,
    /// Reference to the TaskRun, for requeues.
    pub reference: ObjectRef<TaskRun>,
    /// Requeues a run.
    pub requeue_tx: UnboundedSender<ObjectRef<TaskRun>>,
}

impl std::fmt::Debug for LogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSource").field("pod", &self.pod).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStreams {
    /// Returns the state of the stream of a run.
    #[must_use]
    pub fn state(&self, uid: &str) -> LogStream {
        let all = locked(&self.all);
        let Some(entry) = all.get(uid) else { return LogStream::NotStarted };
        let state = locked(&entry.state);
        let snapshot = Box::new(state.snapshot.clone());
        if state.closed { LogStream::Closed(snapshot) } else { LogStream::Open(snapshot) }
    }

    /// Returns the end of the log, up to [`TAIL_BYTES`].
    #[must_use]
    pub fn tail(&self, uid: &str) -> Vec<u8> {
        let all = locked(&self.all);
        let Some(entry) = all.get(uid) else { return Vec::new() };
        let state = locked(&entry.state);
        state.tail.iter().copied().collect()
    }

    /// Starts to read a log from its beginning, unless it is already being read.
    pub fn follow(&self, uid: &str, source: LogSource) {
        let mut all = locked(&self.all);
        if all.contains_key(uid) {
            return;
        }
        let snapshot = EventFold::new(source.run.clone()).observe(LockState::Held);
        let state = Arc::new(Mutex::new(StreamState { snapshot, tail: VecDeque::new(), closed: false }));
        let task = tokio::spawn(read(source, Arc::clone(&state)));
        all.insert(uid.to_owned(), StreamTask { state, task });
    }

    /// Stops reading the log of a run and drops its state.
    pub fn remove(&self, uid: &str) {
        drop(locked(&self.all).remove(uid));
    }
}

/// Reads until the container has terminated and its log is read, deleted, or unreadable for [`UNREADABLE_TIMEOUT`].
///
/// The log alone has the whole outcome, so a controller that starts long after the end still reads it.
async fn read(source: LogSource, state: Arc<Mutex<StreamState>>) {
    // The end of the run waits for it, also if this task panics.
    let _closing = CloseOnDrop { state: Arc::clone(&state), source: source.clone() };
    let pods: Api<Pod> = Api::namespaced(source.client.clone(), &source.namespace);
    let mut pause = Duration::from_millis(200);
    let mut terminated_since: Option<tokio::time::Instant> = None;
    loop {
        // Checked before reading: a container that has terminated by now writes nothing more.
        let container = container_state(&pods, &source.pod).await;
        if matches!(container, Container::Terminated) {
            terminated_since.get_or_insert_with(tokio::time::Instant::now);
        }
        let complete = match read_once(&pods, &source, &state).await {
            Ok(()) => true,
            Err(error) => {
                debug!(pod = source.pod, %error, "log stream failed");
                false
            }
        };
        let has_outcome = locked(&state).snapshot.outcome.is_some();
        let gave_up = terminated_since.is_some_and(|since| since.elapsed() >= UNREADABLE_TIMEOUT);
        let is_over = match container {
            Container::Gone => true,
            Container::Terminated => complete || gave_up,
            Container::Active => false,
        };
        if is_over || has_outcome {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// Marks the stream as closed when its reader ends.
struct CloseOnDrop {
    state: Arc<Mutex<StreamState>>,
    source: LogSource,
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        locked(&self.state).closed = true;
        notify(&self.source);
    }
}

/// What is known about a container before its log is read.
#[derive(Clone, Copy)]
enum Container {
    /// It runs, has not started, or the API server does not answer.
    Active,
    /// Its log has an end.
    Terminated,
    /// The pod was deleted, and its log with it.
    Gone,
}

async fn container_state(pods: &Api<Pod>, name: &str) -> Container {
    match tokio::time::timeout(GET_TIMEOUT, pods.get_opt(name)).await {
        Ok(Ok(Some(pod))) => match observe(&pod, f64::MAX, jiff::Timestamp::now()) {
            PodState::Ended(_) => Container::Terminated,
            PodState::Starting { .. } | PodState::Running { .. } => Container::Active,
        },
        Ok(Ok(None)) => Container::Gone,
        Ok(Err(error)) => {
            debug!(pod = name, %error, "cannot get the pod");
            Container::Active
        }
        Err(_) => Container::Active,
    }
}

fn notify(source: &LogSource) {
    // Sending fails only after the controller has stopped.
    drop(source.requeue_tx.unbounded_send(source.reference.clone()));
}

async fn read_once(pods: &Api<Pod>, source: &LogSource, state: &Mutex<StreamState>) -> Result<(), String> {
    let parameters =
        LogParams { container: Some(CONTAINER.to_owned()), follow: true, ..LogParams::default() };
    let opened = tokio::time::timeout(IDLE_TIMEOUT, pods.log_stream(&source.pod, &parameters)).await;
    let opened = opened.map_err(|_| "timed out waiting for the log".to_owned())?;
    let log = opened.map_err(|error| error.to_string())?;
    let mut log = std::pin::pin!(log);
    // The log is read from its beginning, so the state is replaced only once the reader has caught up.
    let mut fold = EventFold::new(source.run.clone());
    let mut replayed = Some(VecDeque::new());
    let mut notified_at: Option<tokio::time::Instant> = None;
    let mut chunk = vec![0; 32 * 1024];
    loop {
        let count = match tokio::time::timeout(IDLE_TIMEOUT, log.read(&mut chunk)).await {
            Err(_) => return Err("timed out waiting for data".to_owned()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(count)) => count,
        };
        fold.feed(&chunk[..count], |_, _| {});
        let snapshot = fold.observe(LockState::Held);
        let is_urgent = {
            let mut state = locked(state);
            push_tail(replayed.as_mut().unwrap_or(&mut state.tail), &chunk[..count]);
            if snapshot.last_event_seq < state.snapshot.last_event_seq {
                continue;
            }
            if let Some(tail) = replayed.take() {
                state.tail = tail;
            }
            let old = std::mem::replace(&mut state.snapshot, snapshot);
            let new = &state.snapshot;
            new.phase != old.phase || new.step != old.step || new.outcome.is_some()
        };
        let is_due = notified_at.is_none_or(|at| at.elapsed() >= NOTIFY_INTERVAL);
        if is_urgent || is_due {
            notified_at = Some(tokio::time::Instant::now());
            notify(source);
        }
    }
}

fn push_tail(tail: &mut VecDeque<u8>, chunk: &[u8]) {
    tail.extend(chunk);
    let excess = tail.len().saturating_sub(TAIL_BYTES);
    drop(tail.drain(..excess));
}
