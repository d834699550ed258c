//! Follows a run: watches its TaskRun and streams its log.

use std::time::Duration;

use async_trait::async_trait;
use futures::{AsyncReadExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::LogParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use orchestrator_contract::{Event, Phase};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::Connection;
use super::runs;
use crate::backend::{OnEvent, RunFollower, StoredRun};
use crate::error::Error;
use crate::task::event_fold::{EventFold, LockState};
use crate::task::status::Status;
use crate::taskrun::container::CONTAINER;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::{pvc_name, result_name};
use crate::taskrun::result;
use crate::taskrun::status::TaskRunStatus;

/// How long to wait for the rest of the log after a run ends.
const LOG_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Follows one run.
#[derive(Debug)]
pub(super) struct Follower {
    connection: Connection,
    run: StoredRun,
    fold: EventFold,
    /// Sequence number of the last event passed on, since a log may be read more than once.
    last_seq: u64,
    has_polled: bool,
    live: Option<LiveSources>,
    ended_at: Option<Instant>,
    saved_log_read: bool,
}

/// Watch and log stream, which background tasks feed.
#[derive(Debug)]
struct LiveSources {
    runs: watch::Receiver<Option<TaskRun>>,
    log: mpsc::Receiver<Vec<u8>>,
    log_is_open: bool,
    _tasks: JoinSet<()>,
}

impl Follower {
    pub(super) fn new(connection: Connection, run: StoredRun) -> Self {
        let fold = EventFold::new(run.task.run.clone());
        Self {
            connection,
            run,
            fold,
            last_seq: 0,
            has_polled: false,
            live: None,
            ended_at: None,
            saved_log_read: false,
        }
    }

    fn name(&self) -> &str {
        self.run.task.run.as_str()
    }

    /// Returns the TaskRun and passes on new events.
    ///
    /// The first poll reads once, which suffices for callers that need only the current status.
    async fn poll(&mut self, each: &mut OnEvent<'_>) -> Result<Option<TaskRun>, Error> {
        if !std::mem::replace(&mut self.has_polled, true) {
            let found = self.connection.find(&self.run.task.run).await?;
            if let Some(pod) = found.as_ref().and_then(|run| run.status.as_ref()?.pod_name.clone()) {
                let log = self.read_log(&pod).await?;
                self.feed(&log, each);
            }
            return Ok(found);
        }
        if self.live.is_none() {
            self.live = Some(self.subscribe().await?);
        }
        let Some(live) = &mut self.live else { return Ok(None) };
        let mut bytes = Vec::new();
        let closed = loop {
            match live.log.try_recv() {
                Ok(chunk) => bytes.extend(chunk),
                Err(mpsc::error::TryRecvError::Empty) => break false,
                Err(mpsc::error::TryRecvError::Disconnected) => break true,
            }
        };
        live.log_is_open &= !closed;
        let found = live.runs.borrow_and_update().clone();
        self.feed(&bytes, each);
        Ok(found)
    }

    /// Returns the log of a pod so far; empty if it cannot be read.
    async fn read_log(&self, pod: &str) -> Result<Vec<u8>, Error> {
        let pods = self.connection.api::<Pod>().await?;
        let parameters = LogParams { container: Some(CONTAINER.to_owned()), ..LogParams::default() };
        let log = self.connection.call_raw("read the log", pods.logs(pod, &parameters)).await?;
        Ok(log.map(String::into_bytes).unwrap_or_default())
    }

    fn feed(&mut self, bytes: &[u8], each: &mut OnEvent<'_>) {
        let last_seq = &mut self.last_seq;
        self.fold.feed(bytes, |event: &Event, line: &str| {
            if event.seq > *last_seq {
                *last_seq = event.seq;
                each(event, line);
            }
        });
    }

    async fn subscribe(&self) -> Result<LiveSources, Error> {
        let client = self.connection.client().await?;
        let namespace = self.connection.settings().namespace.clone();
        let (run_tx, runs) = watch::channel(self.connection.find(&self.run.task.run).await?);
        let (log_tx, log) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_run(client.clone(), namespace.clone(), self.name().to_owned(), run_tx));
        tasks.spawn(stream_log(client, namespace, runs.clone(), log_tx));
        Ok(LiveSources { runs, log, log_is_open: true, _tasks: tasks })
    }

    /// Reads the log from the result ConfigMap, once, unless the outcome is already known.
    async fn read_saved_log(
        &mut self,
        recorded: &TaskRunStatus,
        each: &mut OnEvent<'_>,
    ) -> Result<(), Error> {
        if self.saved_log_read || self.fold.has_outcome() || recorded.result_config_map_name.is_none() {
            return Ok(());
        }
        self.saved_log_read = true;
        let maps = self.connection.api::<ConfigMap>().await?;
        let name = result_name(self.name());
        let found = self.connection.call("get the result of the run", maps.get_opt(&name)).await?;
        if let Some(log) = found.as_ref().and_then(result::read_log) {
            // The saved log consists of whole lines but may start in the middle, so it needs a new fold.
            self.fold = EventFold::new(self.run.task.run.clone());
            self.feed(&log, each);
        }
        Ok(())
    }
}

#[async_trait]
impl RunFollower for Follower {
    async fn status(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error> {
        let workspace = pvc_name(&self.run.task.service);
        let Some(found) = self.poll(each).await? else {
            return Ok(runs::deleted_status(&self.run, &workspace, now));
        };
        let recorded = found.status.clone().unwrap_or_default();
        if recorded.phase.is_some_and(Phase::is_final) {
            let since = *self.ended_at.get_or_insert_with(Instant::now);
            let open = self.live.as_ref().is_some_and(|live| live.log_is_open);
            let reading = open && !self.fold.has_outcome() && since.elapsed() < LOG_DRAIN_TIMEOUT;
            if !reading {
                self.read_saved_log(&recorded, each).await?;
                return Ok(runs::status(&found, &self.run, &workspace, now));
            }
            // The rest of the log may still arrive.
            let snapshot = self.fold.observe(LockState::Held);
            return Ok(runs::compose(&self.run, snapshot, &recorded, &workspace, now));
        }
        let snapshot = self.fold.observe(LockState::Held);
        let recorded_seq =
            recorded.last_event_seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or_default();
        if snapshot.last_event_seq > recorded_seq {
            return Ok(runs::compose(&self.run, snapshot, &recorded, &workspace, now));
        }
        Ok(runs::status(&found, &self.run, &workspace, now))
    }
}

/// Sends each new version of a TaskRun, and `None` once it is deleted.
async fn watch_run(client: Client, namespace: String, name: String, run_tx: watch::Sender<Option<TaskRun>>) {
    let api: Api<TaskRun> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => {
                listed = true;
                run_tx.send_replace(Some(run));
            }
            Ok(watcher::Event::Init) => listed = false,
            Ok(watcher::Event::Delete(_)) => drop(run_tx.send_replace(None)),
            Ok(watcher::Event::InitDone) if !listed => drop(run_tx.send_replace(None)),
            // The watcher restarts after errors.
            Ok(watcher::Event::InitDone) | Err(_) => {}
        }
    }
}

/// Sends the log of a pod from its beginning, once the container has started, until the run ends.
async fn stream_log(
    client: Client,
    namespace: String,
    mut runs: watch::Receiver<Option<TaskRun>>,
    log_tx: mpsc::Sender<Vec<u8>>,
) {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let parameters =
        LogParams { container: Some(CONTAINER.to_owned()), follow: true, ..LogParams::default() };
    loop {
        let pod_state = |run: &Option<TaskRun>| {
            let status = run.as_ref().and_then(|run| run.status.as_ref());
            let is_finished = status.is_none_or(|status| status.phase.is_some_and(Phase::is_final));
            (
                status
                    .filter(|status| status.start_time.is_some())
                    .and_then(|status| status.pod_name.clone()),
                is_finished,
            )
        };
        let Ok(state) =
            runs.wait_for(|run| pod_state(run).0.is_some() || run.is_none()).await.map(|run| pod_state(&run))
        else {
            return;
        };
        let (Some(pod), is_finished) = state else { return };
        if let Ok(log) = pods.log_stream(&pod, &parameters).await {
            let mut log = std::pin::pin!(log);
            let mut chunk = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = log.read(&mut chunk).await {
                if log_tx.send(chunk[..count].to_vec()).await.is_err() {
                    return;
                }
            }
        }
        if is_finished {
            return;
        }
        // Ends a partial line, since the next stream starts from the beginning.
        if log_tx.send(b"\n".to_vec()).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
