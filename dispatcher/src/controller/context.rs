//! What all reconciliations share: API, caches, log streams and metrics.

use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use super::allow_lists::AllowLists;
use super::api::ClusterApi;
use super::log_streams::LogStreams;
use super::memory::Memory;
use super::metrics::Metrics;
use crate::config::Config;
use crate::config::kubernetes::KubernetesSettings;
use crate::taskrun::definition::TaskRun;

/// Maximum queued runs to requeue when a run ends; the rest poll.
const REQUEUE_BATCH: usize = 100;

/// What all reconciliations share.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub api: ClusterApi,
    /// The configuration.
    pub config: Arc<Config>,
    /// What TaskRuns may ask for.
    pub allow_lists: Arc<AllowLists>,
    /// Watched TaskRuns of the namespace.
    pub runs: Store<TaskRun>,
    /// Watched Jobs of runs.
    pub jobs: Store<Job>,
    /// Watched pods of runs.
    pub pods: Store<Pod>,
    /// Log streams of pods.
    pub streams: LogStreams,
    /// Requeues a run.
    pub requeue_tx: UnboundedSender<ObjectRef<TaskRun>>,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// State that outlives a reconciliation.
    pub memory: Memory,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// Returns the settings of the Kubernetes backend.
    #[must_use]
    pub fn settings(&self) -> &KubernetesSettings {
        self.config.kubernetes()
    }

    /// Requeues the runs that wait for admission, in queue order.
    pub fn requeue_waiting(&self) {
        for name in self.memory.next_waiting(&self.runs.state(), REQUEUE_BATCH) {
            // Sending fails only after the controller has stopped.
            drop(self.requeue_tx.unbounded_send(self.api.reference(&name)));
        }
    }

    /// Removes all state of a run that is being deleted.
    pub fn evict(&self, run: &TaskRun) {
        self.streams.remove(&run.uid().unwrap_or_default());
        self.memory.evict(run);
        self.metrics.remove_run(run);
        self.requeue_waiting();
    }
}
