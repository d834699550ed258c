//! Follows a run: its TaskRun by a watch, its log by a stream.

use std::time::Duration;

use async_trait::async_trait;
use futures::{AsyncReadExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::LogParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use orchestrator_contract::Event;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Kubernetes, runs};
use crate::backend::{Backend as _, OnEvent, RunFollower, StoredRun};
use crate::controller::crd::{TaskRun, TaskRunStatus};
use crate::controller::objects::{CONTAINER, result_name};
use crate::controller::result_configmap;
use crate::error::Error;
use crate::task::event_fold::{EventFold, LockState};
use crate::task::status::Status;

/// How long the end of a log is waited for once its run has ended.
const LOG_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader of one run.
#[derive(Debug)]
pub(super) struct Follower {
    backend: Kubernetes,
    run: StoredRun,
    story: EventFold,
    /// The number of the last event that was shown: a log that is read anew tells it again.
    shown: u64,
    looks: u32,
    live: Option<LiveSources>,
    ended_at: Option<Instant>,
    kept_was_read: bool,
}

/// What brings news by itself.
#[derive(Debug)]
struct LiveSources {
    runs: watch::Receiver<Option<TaskRun>>,
    log: mpsc::Receiver<Vec<u8>>,
    log_is_open: bool,
    _tasks: JoinSet<()>,
}

impl Follower {
    pub(super) fn new(backend: Kubernetes, run: StoredRun) -> Self {
        let story = EventFold::new(run.task.run.clone());
        let (shown, looks) = (0, 0);
        Self { backend, run, story, shown, looks, live: None, ended_at: None, kept_was_read: false }
    }

    fn name(&self) -> &str {
        self.run.task.run.as_str()
    }

    /// The TaskRun, and whatever has been logged meanwhile.
    async fn look(&mut self, each: &mut OnEvent<'_>) -> Result<Option<TaskRun>, Error> {
        self.looks += 1;
        if self.looks == 1 {
            let found = self.backend.find(&self.run.task.run).await?;
            if let Some(pod) = found.as_ref().and_then(|run| run.status.as_ref()?.pod_name.clone()) {
                let log = self.log_so_far(&pod).await?;
                self.feed(&log, each);
            }
            return Ok(found);
        }
        if self.live.is_none() {
            self.live = Some(self.subscribe().await?);
        }
        let Some(live) = &mut self.live else { return Ok(None) };
        let mut news = Vec::new();
        let closed = loop {
            match live.log.try_recv() {
                Ok(chunk) => news.extend(chunk),
                Err(mpsc::error::TryRecvError::Empty) => break false,
                Err(mpsc::error::TryRecvError::Disconnected) => break true,
            }
        };
        live.log_is_open &= !closed;
        let found = live.runs.borrow_and_update().clone();
        self.feed(&news, each);
        Ok(found)
    }

    /// What has been logged; nothing where that cannot be read (any more).
    async fn log_so_far(&self, pod: &str) -> Result<Vec<u8>, Error> {
        let pods = self.backend.api::<Pod>().await?;
        let whole = LogParams { container: Some(CONTAINER.to_owned()), ..LogParams::default() };
        let log = self.backend.call_raw("read the log", pods.logs(pod, &whole)).await?;
        Ok(log.map(String::into_bytes).unwrap_or_default())
    }

    fn feed(&mut self, bytes: &[u8], each: &mut OnEvent<'_>) {
        let shown = &mut self.shown;
        self.story.feed(bytes, |event: &Event, line: &str| {
            if event.seq > *shown {
                *shown = event.seq;
                each(event, line);
            }
        });
    }

    async fn subscribe(&self) -> Result<LiveSources, Error> {
        let client = self.backend.client().await?;
        let namespace = self.backend.settings().namespace.clone();
        let (tell, runs) = watch::channel(self.backend.find(&self.run.task.run).await?);
        let (write, log) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_run(client.clone(), namespace.clone(), self.name().to_owned(), tell));
        tasks.spawn(read_log(client, namespace, runs.clone(), write));
        Ok(LiveSources { runs, log, log_is_open: true, _tasks: tasks })
    }

    /// What was kept of the log when the pod went.
    async fn read_saved_log(&mut self, kept: &TaskRunStatus, each: &mut OnEvent<'_>) -> Result<(), Error> {
        if self.kept_was_read || self.story.has_outcome() || kept.result_config_map_name.is_none() {
            return Ok(());
        }
        self.kept_was_read = true;
        let maps = self.backend.api::<ConfigMap>().await?;
        let name = result_name(self.name());
        let found = self.backend.call("read what is kept of the run", maps.get_opt(&name)).await?;
        if let Some(log) = found.as_ref().and_then(result_configmap::read_log) {
            // It starts anew, or in the middle of what was told before: lines are whole in it.
            self.story = EventFold::new(self.run.task.run.clone());
            self.feed(&log, each);
        }
        Ok(())
    }
}

#[async_trait]
impl RunFollower for Follower {
    async fn status(&mut self, now: Timestamp, each: &mut OnEvent<'_>) -> Result<Status, Error> {
        let workspace = self.backend.workspace(&self.run.task.service);
        let Some(found) = self.look(each).await? else {
            return Ok(runs::deleted_status(&self.run, &workspace, now));
        };
        let kept = found.status.clone().unwrap_or_default();
        if kept.phase.is_some_and(orchestrator_contract::Phase::is_final) {
            let since = *self.ended_at.get_or_insert_with(Instant::now);
            let open = self.live.as_ref().is_some_and(|live| live.log_is_open);
            let reading = open && !self.story.has_outcome() && since.elapsed() < LOG_DRAIN_TIMEOUT;
            if !reading {
                self.read_saved_log(&kept, each).await?;
                return Ok(runs::status(&found, &self.run, &workspace, now));
            }
            // It has ended, and the end of its log is on its way.
            return Ok(runs::compose(&self.run, self.story.observe(LockState::Held), &kept, &workspace, now));
        }
        let told = self.story.observe(LockState::Held);
        if told.last_event_seq
            > kept.last_event_seq.and_then(|seq| u64::try_from(seq).ok()).unwrap_or_default()
        {
            return Ok(runs::compose(&self.run, told, &kept, &workspace, now));
        }
        Ok(runs::status(&found, &self.run, &workspace, now))
    }
}

/// Tells each new state of a TaskRun, and that it is gone.
async fn watch_run(client: Client, namespace: String, name: String, tell: watch::Sender<Option<TaskRun>>) {
    let api: Api<TaskRun> = Api::namespaced(client, &namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, only).default_backoff());
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => {
                listed = true;
                tell.send_replace(Some(run));
            }
            Ok(watcher::Event::Init) => listed = false,
            Ok(watcher::Event::Delete(_)) => drop(tell.send_replace(None)),
            Ok(watcher::Event::InitDone) if !listed => drop(tell.send_replace(None)),
            // The watch is made anew by itself.
            Ok(watcher::Event::InitDone) | Err(_) => {}
        }
    }
}

/// Passes on the log of a run's pod, from its beginning, as soon as there is one and until it ends.
async fn read_log(
    client: Client,
    namespace: String,
    mut runs: watch::Receiver<Option<TaskRun>>,
    write: mpsc::Sender<Vec<u8>>,
) {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let follow = LogParams { container: Some(CONTAINER.to_owned()), follow: true, ..LogParams::default() };
    loop {
        let began = |run: &Option<TaskRun>| {
            let status = run.as_ref().and_then(|run| run.status.as_ref());
            let over =
                status.is_none_or(|status| status.phase.is_some_and(orchestrator_contract::Phase::is_final));
            (
                status
                    .filter(|status| status.start_time.is_some())
                    .and_then(|status| status.pod_name.clone()),
                over,
            )
        };
        let Ok(state) =
            runs.wait_for(|run| began(run).0.is_some() || run.is_none()).await.map(|run| began(&run))
        else {
            return;
        };
        let (Some(pod), over) = state else { return };
        if let Ok(log) = pods.log_stream(&pod, &follow).await {
            let mut log = std::pin::pin!(log);
            let mut chunk = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = log.read(&mut chunk).await {
                if write.send(chunk[..count].to_vec()).await.is_err() {
                    return;
                }
            }
        }
        if over {
            return;
        }
        // A half line must not be glued to the beginning of what comes anew.
        if write.send(b"\n".to_vec()).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
