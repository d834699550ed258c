//! Watches a namespace and looks after its runs, as long as this process leads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::{Config as Pace, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use kube_lease_manager::{LeaseCreateMode, LeaseManagerBuilder};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::crd::{TaskRun, labels};
use super::log_streams::LogStreams;
use super::metrics::Metrics;
use super::objects::FIELD_MANAGER;
use super::reconcile::{Context, error_policy, reconcile};
use crate::config::Config;

/// The Lease that only one process holds.
pub const LEASE: &str = "orchestrator-controller";

/// How many runs are looked after at the same time.
const MAX_CONCURRENT_RECONCILES: u16 = 64;

/// How often pods whose run is gone are looked for.
const ORPHAN_SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How long what is in hand may take once this process is to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Seconds until the lease of a leader that died can be taken.
const LEASE_SECONDS: u64 = 15;

/// Seconds before its end at which a leader renews it.
const LEASE_RENEW_SECONDS: u64 = 5;

/// Looks after the runs of the configured namespace whenever this process leads, until `stop`.
pub async fn run(
    client: Client,
    config: Arc<Config>,
    metrics: Metrics,
    name: String,
    stop: CancellationToken,
) {
    let namespace = config.kubernetes().namespace.clone();
    let mut pause = Duration::from_secs(1);
    while !stop.is_cancelled() {
        let lease = LeaseManagerBuilder::new(client.clone(), LEASE)
            .with_namespace(&namespace)
            .with_identity(&name)
            .with_field_manager(&name)
            .with_create_mode(LeaseCreateMode::AutoCreate)
            .with_duration(LEASE_SECONDS)
            .with_grace(LEASE_RENEW_SECONDS)
            .build()
            .await;
        match lease {
            Ok(lease) => {
                pause = Duration::from_secs(1);
                let (mut leads, task) = lease.watch().await;
                while !stop.is_cancelled() && !task.is_finished() {
                    if *leads.borrow_and_update() {
                        info!(namespace, name, "leader");
                        metrics.set_leader(true);
                        let over = stop.child_token();
                        let work = run_as_leader(
                            client.clone(),
                            Arc::clone(&config),
                            metrics.clone(),
                            &name,
                            over.clone(),
                        );
                        let mut work = std::pin::pin!(work);
                        loop {
                            tokio::select! {
                                () = &mut work => break,
                                changed = leads.changed() => {
                                    if changed.is_err() || !*leads.borrow_and_update() {
                                        // What is not led must not be written: dropped, not finished.
                                        warn!(namespace, name, "leads no more");
                                        break;
                                    }
                                }
                            }
                        }
                        metrics.set_leader(false);
                    } else {
                        tokio::select! {
                            changed = leads.changed() => if changed.is_err() { break },
                            () = stop.cancelled() => {}
                        }
                    }
                }
                // Dropping the channel releases the lease: the next leader need not wait.
                drop(leads);
                if let Ok(Err(error)) = task.await {
                    warn!(namespace, "the lease was lost: {error}");
                }
            }
            Err(error) => warn!(namespace, "cannot ask for the lease: {error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(15)),
            () = stop.cancelled() => {}
        }
    }
}

/// Looks after the runs until `stop`.
async fn run_as_leader(
    client: Client,
    config: Arc<Config>,
    metrics: Metrics,
    name: &str,
    stop: CancellationToken,
) {
    let namespace = config.kubernetes().namespace.clone();
    let runs = Api::<TaskRun>::namespaced(client.clone(), &namespace);
    let (run_store, run_writer) = reflector::store();
    let counted = metrics.clone();
    let run_stream = watcher(runs, watcher::Config::default())
        .default_backoff()
        .modify(strip_managed_fields)
        .reflect(run_writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => counted.seen(run),
            Ok(watcher::Event::Delete(run)) => counted.remove_run(run),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => warn!("the watch of TaskRuns broke, and is made anew: {error}"),
        })
        .applied_objects();
    let (news, told) = mpsc::unbounded();
    let mut watches = JoinSet::new();
    let jobs = reflect(Api::<Job>::namespaced(client.clone(), &namespace), &news, &mut watches);
    let pods = reflect(Api::<Pod>::namespaced(client.clone(), &namespace), &news, &mut watches);
    // A Job that is not seen yet must not be taken for one that is gone.
    let lists = async { jobs.wait_until_ready().await.is_ok() && pods.wait_until_ready().await.is_ok() };
    tokio::select! {
        ready = lists => if !ready { return },
        () = stop.cancelled() => return,
    }
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(name.to_owned()) };
    let context = Arc::new(Context {
        client: client.clone(),
        config,
        runs: run_store.clone(),
        jobs,
        pods,
        streams: LogStreams::default(),
        requeue_tx: news,
        recorder: Recorder::new(client, reporter),
        metrics,
        last_written: Arc::new(Mutex::new(HashMap::new())),
        admitted: Arc::new(Mutex::new(HashMap::new())),
        admissions: Arc::default(),
        failures: Arc::new(Mutex::new(HashMap::new())),
    });
    let keeper = Arc::clone(&context);
    let looking = Controller::for_stream(run_stream, run_store)
        .with_config(Pace::default().concurrency(MAX_CONCURRENT_RECONCILES))
        .reconcile_on(told)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, error_policy, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                debug!("{error}");
            }
        });
    let orphans = async {
        loop {
            tokio::time::sleep(ORPHAN_SWEEP_INTERVAL).await;
            if let Err(failure) = keeper.release_orphans().await {
                warn!("{failure}");
            }
        }
    };
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    // Whatever is in hand can be done again by whoever leads next.
    tokio::select! {
        () = looking => {}
        () = orphans => {}
        () = patience => warn!("stopped with work in hand"),
    }
}

/// Who has written which field is nobody's question here, and half of what an object takes.
fn strip_managed_fields<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Keeps what there is of a kind, and has the run of each that changes looked at.
fn reflect<K>(
    api: Api<K>,
    news: &mpsc::UnboundedSender<ObjectRef<TaskRun>>,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=orchestrator");
    let (store, writer) = reflector::store();
    let news = news.clone();
    tasks.spawn(async move {
        let mut changes = std::pin::pin!(
            watcher(api, ours)
                .default_backoff()
                .modify(strip_managed_fields)
                .reflect(writer)
                .touched_objects()
        );
        while let Some(change) = changes.next().await {
            match change {
                Ok(object) => {
                    let run = object.labels().get(labels::RUN).zip(object.namespace());
                    if let Some(run) = run.map(|(run, namespace)| ObjectRef::new(run).within(&namespace)) {
                        // Nobody listens any more once the controller ends.
                        drop(news.unbounded_send(run));
                    }
                }
                Err(error) => warn!("the watch of {}s broke, and is made anew: {error}", K::kind(&())),
            }
        }
    });
    store
}
