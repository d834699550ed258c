//! A Kubernetes cluster for tests: a control plane, real where there is one, and a node that runs pods.
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
//! The way of a request: `gate` (the network: `cut`, `mend`) → `front` (TLS, who asks, what was
//! asked, hooks, `expire`) → a real API server or the `stand_in`. Both take the same way, so a test does
//! not care which one answers. The `kubelet` is one more client.

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
