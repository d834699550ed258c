//! Runs in a cluster: TaskRuns, and the controller that has Jobs perform them.
//!
//! | module | what it knows |
//! |---|---|
//! | [`crd`] | the TaskRun: one run, as a cluster keeps it |
//! | [`objects`] | volume, task, Job and pod of a run (pure) |
//! | [`pod`] | what a pod's status says about its run (pure) |
//! | [`queue`] | whose turn it is (pure) |
//! | [`decide`] | what is to be done about a run (pure) |
//! | [`status`] | the status of a run (pure) |
//! | [`result`] | what is kept when the pod is gone (pure) |
//! | [`claim`] | who holds a service's volume, and its highest attempt numbers |
//! | [`streams`] | reads the event streams of pods |
//! | [`reconcile`] | looks at a run, has it decided what to do, and does it |
//! | [`operate`] | watches a namespace, as long as this process leads |
//! | [`metrics`] | what is counted |

pub mod crd;
pub mod decide;
pub mod log_streams;
pub mod manager;
pub mod metrics;
pub mod objects;
pub mod pod;
pub mod queue;
pub mod reconcile;
pub mod result_configmap;
pub mod status;
pub mod workspace_claim;
