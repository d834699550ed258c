//! The served resources: the built-in ones that are used, and those of definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::{batch, coordination, core, events, networking, rbac};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::definition::Schema;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    Namespace,
    Cluster,
}

/// The validation of an object.
#[derive(Clone)]
pub enum Shape {
    /// A built-in type: unknown fields are dropped, wrong types rejected.
    Type(fn(Value) -> Result<Value, String>),
    /// The schema of a definition.
    Schema(Arc<Schema>),
}

/// A resource in one version.
#[derive(Clone)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub scope: Scope,
    pub short: Vec<String>,
    pub subresources: Vec<String>,
    pub shape: Shape,
}

impl Resource {
    /// Returns `plural.group`, or only the plural in the core group.
    pub fn group_resource(&self) -> String {
        group_resource(&self.group, &self.plural)
    }

    /// Returns the name of the stored resource: events of both groups are the same objects.
    pub fn stored_as(&self) -> String {
        if self.plural == "events" { "events".to_owned() } else { self.group_resource() }
    }

    /// Returns `group/version`, or only the version in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Returns whether it has a subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|it| it == subresource)
    }

    /// Returns whether it comes from a definition.
    pub fn is_custom(&self) -> bool {
        matches!(self.shape, Shape::Schema(_))
    }
}

/// Returns `plural.group`, or only the plural in the core group.
pub fn group_resource(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

pub struct Resources {
    built_in: Vec<Arc<Resource>>,
    custom: BTreeMap<String, Vec<Arc<Resource>>>,
}

impl Resources {
    pub fn built_in() -> Self {
        let (ns, cluster) = (Scope::Namespace, Scope::Cluster);
        let (rbac, status) = ("rbac.authorization.k8s.io", &["status"][..]);
        let built_in = vec![
            of::<core::v1::Namespace>("", "namespaces", "Namespace", cluster, "ns", &["status", "finalize"]),
            of::<core::v1::Node>("", "nodes", "Node", cluster, "no", status),
            of::<core::v1::Pod>("", "pods", "Pod", ns, "po", &["status", "log", "binding"]),
            of::<core::v1::ConfigMap>("", "configmaps", "ConfigMap", ns, "cm", &[]),
            of::<core::v1::Secret>("", "secrets", "Secret", ns, "", &[]),
            of::<core::v1::ServiceAccount>("", "serviceaccounts", "ServiceAccount", ns, "sa", &[]),
            of::<core::v1::PersistentVolumeClaim>(
                "",
                "persistentvolumeclaims",
                "PersistentVolumeClaim",
                ns,
                "pvc",
                status,
            ),
            of::<core::v1::Event>("", "events", "Event", ns, "ev", &[]),
            of::<events::v1::Event>("events.k8s.io", "events", "Event", ns, "ev", &[]),
            of::<batch::v1::Job>("batch", "jobs", "Job", ns, "", status),
            of::<coordination::v1::Lease>("coordination.k8s.io", "leases", "Lease", ns, "", &[]),
            of::<networking::v1::NetworkPolicy>(
                "networking.k8s.io",
                "networkpolicies",
                "NetworkPolicy",
                ns,
                "netpol",
                &[],
            ),
            of::<rbac::v1::Role>(rbac, "roles", "Role", ns, "", &[]),
            of::<rbac::v1::RoleBinding>(rbac, "rolebindings", "RoleBinding", ns, "", &[]),
            of::<rbac::v1::ClusterRole>(rbac, "clusterroles", "ClusterRole", cluster, "", &[]),
            of::<rbac::v1::ClusterRoleBinding>(
                rbac,
                "clusterrolebindings",
                "ClusterRoleBinding",
                cluster,
                "",
                &[],
            ),
            of::<apiextensions::v1::CustomResourceDefinition>(
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                "CustomResourceDefinition",
                cluster,
                "crd",
                status,
            ),
        ];
        Self { built_in: built_in.into_iter().map(Arc::new).collect(), custom: BTreeMap::new() }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.built_in.iter().chain(self.custom.values().flatten())
    }

    /// Returns the resource of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let is = |it: &&Arc<Resource>| it.group == group && it.version == version && it.plural == plural;
        self.all().find(is).map(Arc::clone)
    }

    /// Returns the resource of a stored name.
    pub fn stored_as(&self, stored: &str) -> Option<Arc<Resource>> {
        self.all().find(|it| it.stored_as() == stored).map(Arc::clone)
    }

    /// Serves the resources of a definition.
    pub fn define(&mut self, definition: &str, resources: Vec<Resource>) {
        let resources = resources.into_iter().map(Arc::new).collect();
        self.custom.insert(definition.to_owned(), resources);
    }

    /// Removes the resources of a definition.
    pub fn undefine(&mut self, definition: &str) {
        self.custom.remove(definition);
    }
}

fn of<T: Serialize + DeserializeOwned>(
    group: &str,
    plural: &str,
    kind: &str,
    scope: Scope,
    short: &str,
    subresources: &[&str],
) -> Resource {
    Resource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        kind: kind.to_owned(),
        scope,
        short: Some(short).filter(|it| !it.is_empty()).map(str::to_owned).into_iter().collect(),
        subresources: subresources.iter().map(|&it| it.to_owned()).collect(),
        shape: Shape::Type(typed::<T>),
    }
}

fn typed<T: Serialize + DeserializeOwned>(value: Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}
