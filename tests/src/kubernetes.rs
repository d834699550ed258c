//! A Kubernetes cluster for tests: a control plane (envtest or fake), and a node that runs pods.
//!
//! ```no_run
//! # async fn example() {
//! use orchestrator_tests::kubernetes::{ControlPlane, Kubelet};
//!
//! let plane = ControlPlane::start();
//! let mut kubelet = Kubelet::start(&plane);
//! kubelet.program("registry.example/agent:1", "/path/to/supervisor");
//! let client = plane.client();
//! plane.namespace("team").await;
//! // KUBECONFIG for programs: plane.kubeconfig()
//! # }
//! ```
//!
//! A request passes `faulty_proxy` (the network: `disconnect`, `reconnect`) and `recording_proxy` (TLS,
//! authentication, recording, hooks, `expire`) to a real API server or the `fake_apiserver`. Tests are the same
//! for both. The `kubelet` is another client.

pub mod control_plane;
mod envtest;
pub mod fake_apiserver;
mod faulty_proxy;
pub mod kubelet;
pub mod recording_proxy;
pub mod test_cluster;
mod tls;
mod users;

pub use control_plane::ControlPlane;
pub use kubelet::{Fault, Kubelet};
pub use recording_proxy::{HookPoint, Request};
