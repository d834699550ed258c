//! Reconciles the TaskRuns of a namespace while this process is leader.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::{Config as ControllerConfig, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerBuilder};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::allow_lists::AllowLists;
use super::api::{ClusterApi, FIELD_MANAGER};
use super::context::Context;
use super::log_streams::LogStreams;
use super::memory::Memory;
use super::metrics::Metrics;
use super::reconcile::{error_policy, reconcile, release_orphans};
use crate::config::Config;
use crate::taskrun::definition::TaskRun;
use crate::taskrun::names::{LEASE, labels};

/// Maximum concurrent reconciliations.
const MAX_CONCURRENT_RECONCILES: u16 = 64;

/// How often to look for pods whose TaskRun no longer exists.
const ORPHAN_SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How long running reconciliations may take after a shutdown request.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Seconds until the lease of a crashed leader expires.
const LEASE_SECONDS: u64 = 15;

/// Seconds before expiry at which the leader renews its lease.
const LEASE_RENEW_SECONDS: u64 = 5;

/// Maximum delay between two attempts to build or renew the lease.
const MAX_LEASE_RETRY_DELAY: Duration = Duration::from_secs(15);

/// The controller of one process.
struct Manager {
    client: Client,
    config: Arc<Config>,
    metrics: Metrics,
    /// Identity of this process in the Lease and in events.
    name: String,
    stop: CancellationToken,
}

/// Reconciles the namespace while this process is leader, until `stop`.
pub async fn run(
    client: Client,
    config: Arc<Config>,
    metrics: Metrics,
    name: String,
    stop: CancellationToken,
) {
    let manager = Manager { client, config, metrics, name, stop };
    let (namespace, stop) = (manager.namespace(), &manager.stop);
    let mut delay = Duration::from_secs(1);
    while !stop.is_cancelled() {
        let lease = LeaseManagerBuilder::new(manager.client.clone(), LEASE)
            .with_namespace(namespace)
            .with_identity(&manager.name)
            .with_field_manager(&manager.name)
            .with_create_mode(LeaseCreateMode::AutoCreate)
            .with_duration(LEASE_SECONDS)
            .with_grace(LEASE_RENEW_SECONDS)
            .build()
            .await;
        match lease {
            Ok(lease) => {
                delay = Duration::from_secs(1);
                manager.follow_lease(lease).await;
            }
            Err(error) => warn!(namespace, %error, "cannot access the lease"),
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => delay = (delay * 2).min(MAX_LEASE_RETRY_DELAY),
            () = stop.cancelled() => {}
        }
    }
}

impl Manager {
    fn namespace(&self) -> &str {
        &self.config.kubernetes().namespace
    }

    /// Reconciles whenever this process holds the lease, until the lease fails or `stop`.
    async fn follow_lease(&self, lease: LeaseManager) {
        let (mut is_leader, task) = lease.watch().await;
        while !self.stop.is_cancelled() && !task.is_finished() {
            if *is_leader.borrow_and_update() {
                info!(namespace = self.namespace(), name = self.name, "became leader");
                self.metrics.set_leader(true);
                let mut work = std::pin::pin!(self.run_as_leader());
                loop {
                    tokio::select! {
                        () = &mut work => break,
                        changed = is_leader.changed() => {
                            if changed.is_err() || !*is_leader.borrow_and_update() {
                                // Only the leader may write, so reconciliations are cancelled midway.
                                warn!(namespace = self.namespace(), name = self.name, "lost leadership");
                                break;
                            }
                        }
                    }
                }
                self.metrics.set_leader(false);
            } else {
                tokio::select! {
                    changed = is_leader.changed() => if changed.is_err() { break },
                    () = self.stop.cancelled() => {}
                }
            }
        }
        // Dropping the channel releases the lease, so the next leader can start immediately.
        drop(is_leader);
        if let Ok(Err(error)) = task.await {
            warn!(namespace = self.namespace(), %error, "lease failed");
        }
    }

    /// Reconciles until `stop`.
    async fn run_as_leader(&self) {
        let (run_store, run_writer) = reflector::store();
        let run_stream = self.watch_runs(run_writer);
        let (requeue_tx, requeue_rx) = mpsc::unbounded();
        let mut watches = JoinSet::new();
        let jobs = reflect(self.api::<Job>(), &requeue_tx, &mut watches);
        let pods = reflect(self.api::<Pod>(), &requeue_tx, &mut watches);
        // A Job that the watch has not delivered must not count as deleted.
        let lists = async { jobs.wait_until_ready().await.is_ok() && pods.wait_until_ready().await.is_ok() };
        tokio::select! {
            ready = lists => if !ready { return },
            () = self.stop.cancelled() => return,
        }
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(self.name.clone()) };
        let context = Arc::new(Context {
            api: ClusterApi {
                client: self.client.clone(),
                namespace: self.namespace().to_owned(),
                recorder: Recorder::new(self.client.clone(), reporter),
            },
            config: Arc::clone(&self.config),
            allow_lists: Arc::new(AllowLists::new(&self.config)),
            runs: run_store.clone(),
            jobs,
            pods,
            streams: LogStreams::default(),
            requeue_tx,
            metrics: self.metrics.clone(),
            memory: Memory::default(),
        });
        let controller = Controller::for_stream(run_stream, run_store)
            .with_config(ControllerConfig::default().concurrency(MAX_CONCURRENT_RECONCILES))
            .reconcile_on(requeue_rx)
            .graceful_shutdown_on(self.stop.clone().cancelled_owned())
            .run(reconcile, error_policy, Arc::clone(&context))
            .for_each(|result| async move {
                if let Err(error) = result {
                    debug!(%error, "reconciliation failed");
                }
            });
        let shutdown = async {
            self.stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        tokio::select! {
            () = controller => {}
            () = sweep_orphans(&context) => {}
            // Actions are idempotent, so the next leader resumes.
            () = shutdown => warn!("shut down during reconciliations"),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// Watches the TaskRuns into a store, and records them in the metrics.
    fn watch_runs(
        &self,
        writer: reflector::store::Writer<TaskRun>,
    ) -> impl Stream<Item = Result<TaskRun, watcher::Error>> + Send + 'static {
        let metrics = self.metrics.clone();
        watcher(self.api::<TaskRun>(), watcher::Config::default())
            .default_backoff()
            .modify(strip_managed_fields)
            .reflect(writer)
            .inspect(move |event| match event {
                Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run)) => metrics.record_run(run),
                Ok(watcher::Event::Delete(run)) => metrics.remove_run(run),
                Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
                Err(error) => warn!(%error, "TaskRun watch failed, restarting"),
            })
            .applied_objects()
    }
}

/// Releases orphaned pods at regular intervals, forever.
async fn sweep_orphans(context: &Context) {
    loop {
        tokio::time::sleep(ORPHAN_SWEEP_INTERVAL).await;
        if let Err(error) = release_orphans(context).await {
            warn!(%error, "orphaned pods not released");
        }
    }
}

/// Drops the managed fields, which the controller does not use and which are half of an object's size.
fn strip_managed_fields<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Watches a kind of objects into a store, and requeues the run of each changed object.
fn reflect<K>(
    api: Api<K>,
    requeue_tx: &mpsc::UnboundedSender<ObjectRef<TaskRun>>,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let managed = watcher::Config::default().labels("app.kubernetes.io/managed-by=orchestrator");
    let (store, writer) = reflector::store();
    let requeue_tx = requeue_tx.clone();
    tasks.spawn(async move {
        let mut changes = std::pin::pin!(
            watcher(api, managed)
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
                        // Sending fails only after the controller has stopped.
                        drop(requeue_tx.unbounded_send(run));
                    }
                }
                Err(error) => warn!(kind = %K::kind(&()), %error, "watch failed, restarting"),
            }
        }
    });
    store
}
