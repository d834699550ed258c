//! Reads the event streams of pods: each from its beginning, whoever read it before.

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

use super::crd::TaskRun;
use super::decide::LogStream;
use super::objects::CONTAINER;
use super::pod::{PodState, observe};
use crate::task::event_fold::{EventFold, LockState, RunSnapshot};

/// How much of the end of a log is kept, bytes.
const TAIL: usize = 4 * 1024 * 1024;

/// How often a stream that tells much has its run looked at.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a log may be silent before the connection is made anew: a watch that died silently looks the same.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The streams that are being read, by the uid of their run.
#[derive(Clone, Debug, Default)]
pub struct LogStreams {
    all: Arc<Mutex<HashMap<String, StreamTask>>>,
}

#[derive(Debug)]
struct StreamTask {
    told: Arc<Mutex<StreamState>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct StreamState {
    observed: RunSnapshot,
    tail: VecDeque<u8>,
    closed: bool,
}

/// Where the log of a run is.
#[derive(Clone)]
pub struct LogSource {
    /// The API server.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The run.
    pub run: RunName,
    /// The run, as the controller knows it.
    pub reference: ObjectRef<TaskRun>,
    /// Where to say that there is news.
    pub news: UnboundedSender<ObjectRef<TaskRun>>,
}

impl std::fmt::Debug for LogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("pod", &self.pod).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStreams {
    /// What the stream of a run has told.
    #[must_use]
    pub fn state(&self, uid: &str) -> LogStream {
        let all = locked(&self.all);
        let Some(entry) = all.get(uid) else { return LogStream::NotStarted };
        let told = locked(&entry.told);
        let observed = Box::new(told.observed.clone());
        if told.closed { LogStream::Closed(observed) } else { LogStream::Open(observed) }
    }

    /// The end of the log, as far as it was kept.
    #[must_use]
    pub fn tail(&self, uid: &str) -> Vec<u8> {
        let all = locked(&self.all);
        let Some(entry) = all.get(uid) else { return Vec::new() };
        let told = locked(&entry.told);
        told.tail.iter().copied().collect()
    }

    /// Reads a stream from its beginning, unless it is being read.
    pub fn follow(&self, uid: &str, source: LogSource) {
        let mut all = locked(&self.all);
        if all.contains_key(uid) {
            return;
        }
        let observed = EventFold::new(source.run.clone()).observe(LockState::Held);
        let told = Arc::new(Mutex::new(StreamState { observed, tail: VecDeque::new(), closed: false }));
        let task = tokio::spawn(read(source, Arc::clone(&told)));
        all.insert(uid.to_owned(), StreamTask { told, task });
    }

    /// Forgets a run.
    pub fn forget(&self, uid: &str) {
        drop(locked(&self.all).remove(uid));
    }
}

/// Reads until the container has ended and its log is read, or cannot be read any more.
async fn read(source: LogSource, told: Arc<Mutex<StreamState>>) {
    let pods: Api<Pod> = Api::namespaced(source.client.clone(), &source.namespace);
    let mut pause = Duration::from_millis(200);
    loop {
        // Asked before reading: what has ended now has written everything that it ever will.
        let over = match pods.get_opt(&source.pod).await {
            Ok(Some(pod)) => matches!(observe(&pod, f64::MAX, jiff::Timestamp::now()), PodState::Ended(_)),
            Ok(None) => true,
            Err(error) => {
                debug!(pod = source.pod, %error, "cannot ask for the pod");
                false
            }
        };
        let ended = read_once(&pods, &source, &told).await;
        if let Err(error) = &ended {
            debug!(pod = source.pod, %error, "the log ended early");
        }
        let has_outcome = locked(&told).observed.outcome.is_some();
        if over || has_outcome {
            locked(&told).closed = true;
            notify(&source);
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

fn notify(source: &LogSource) {
    // The controller may have ended meanwhile.
    drop(source.news.unbounded_send(source.reference.clone()));
}

async fn read_once(pods: &Api<Pod>, source: &LogSource, told: &Mutex<StreamState>) -> Result<(), String> {
    let parameters =
        LogParams { container: Some(CONTAINER.to_owned()), follow: true, ..LogParams::default() };
    let log = pods.log_stream(&source.pod, &parameters).await.map_err(|error| error.to_string())?;
    let mut log = std::pin::pin!(log);
    // From the beginning: what was told before is told again, and takes the place of what is known only
    // when it has caught up.
    let mut story = EventFold::new(source.run.clone());
    let mut behind = Some(VecDeque::new());
    let mut noticed: Option<tokio::time::Instant> = None;
    let mut chunk = vec![0; 32 * 1024];
    loop {
        let count = match tokio::time::timeout(IDLE_TIMEOUT, log.read(&mut chunk)).await {
            Err(_) => return Err("nothing was heard for a long time".to_owned()),
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(count)) => count,
        };
        story.feed(&chunk[..count], |_, _| {});
        let now = story.observe(LockState::Held);
        let pressing = {
            let mut told = locked(told);
            push_tail(behind.as_mut().unwrap_or(&mut told.tail), &chunk[..count]);
            if now.last_event_seq < told.observed.last_event_seq {
                continue;
            }
            if let Some(tail) = behind.take() {
                told.tail = tail;
            }
            let old = std::mem::replace(&mut told.observed, now);
            let now = &told.observed;
            now.phase != old.phase || now.step != old.step || now.outcome.is_some()
        };
        let due = noticed.is_none_or(|at| at.elapsed() >= NOTIFY_INTERVAL);
        if pressing || due {
            noticed = Some(tokio::time::Instant::now());
            notify(source);
        }
    }
}

fn push_tail(tail: &mut VecDeque<u8>, chunk: &[u8]) {
    tail.extend(chunk);
    let surplus = tail.len().saturating_sub(TAIL);
    drop(tail.drain(..surplus));
}
