//! The TaskRun resource, which the Kubernetes backend and the controller share.
//!
//! | module | content |
//! |---|---|
//! | [`definition`] | the resource: specification and accessors |
//! | [`status`] | its status |
//! | [`crd`] | the CustomResourceDefinition: schema and validation rules |
//! | [`convert`] | conversion from and to the task spec of the supervisor |
//! | [`names`] | names, labels and finalizers of the objects of a run |
//! | [`container`] | the supervisor container: name, paths and arguments |
//! | [`claim`] | annotations of the PVC: its holder, and the last attempt numbers |
//! | [`result`] | the ConfigMap that keeps outcome and log after the pod is deleted |
//!
//! Pure: no API calls, no clock.

pub mod claim;
pub mod container;
pub mod convert;
pub mod crd;
pub mod definition;
pub mod names;
pub mod result;
pub mod status;
