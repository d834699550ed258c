//! The Kubernetes controller: runs each TaskRun as a Job.
//!
//! | module | content |
//! |---|---|
//! | [`manager`] | holds the lease, watches the namespace and starts reconciliations |
//! | [`reconcile`] | reconciles one run: observe, decide, act, write the status |
//! | [`context`] | what all reconciliations share |
//! | [`memory`] | what the controller remembers between reconciliations, behind one lock |
//! | [`observe`] | the observed state of a run, read from caches and log streams |
//! | [`cluster_state`] | the type of that state |
//! | [`allow_lists`] | the images, agents and services that TaskRuns may name (pure) |
//! | [`decide`] | decides which actions a run needs (pure) |
//! | [`actions`] | performs the actions |
//! | [`api`] | API calls with a timeout, and their errors |
//! | [`finalizer`] | adds and removes finalizers |
//! | [`workspace_claim`] | acquires the workspace PVC of a service |
//! | [`objects`] | builds PVC, ConfigMap, Job and pod of a run (pure) |
//! | [`pod`] | classifies the status of a pod (pure) |
//! | [`queue`] | decides which queued runs may start (pure) |
//! | [`status`] | computes the status of a run (pure) |
//! | [`log_streams`] | reads the event streams of pods |
//! | [`metrics`] | Prometheus metrics |

pub mod actions;
pub mod allow_lists;
pub mod api;
pub mod cluster_state;
pub mod context;
pub mod decide;
pub mod finalizer;
pub mod log_streams;
pub mod manager;
pub mod memory;
pub mod metrics;
pub mod objects;
pub mod observe;
pub mod pod;
pub mod queue;
pub mod reconcile;
pub mod status;
pub mod workspace_claim;
