//! Authorization with RBAC roles and bindings.

use serde_json::{Value, json};

use super::api_state::ApiState;
use crate::kubernetes::users::User;

/// The action to authorize.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceAttributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    /// With the subresource after a slash.
    pub resource: &'a str,
    /// Empty for cluster scope or all namespaces.
    pub namespace: &'a str,
    /// Empty for a collection.
    pub name: &'a str,
}

impl ResourceAttributes<'_> {
    /// Returns the server's error message.
    pub fn refusal(&self, user: &User) -> String {
        let Self { verb, group, resource, namespace, .. } = self;
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        format!(
            "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}",
            user.name
        )
    }
}

/// Returns whether a user may do it.
pub fn is_allowed(state: &ApiState, user: &User, attributes: &ResourceAttributes<'_>) -> bool {
    if user.is_master() || attributes.resource.starts_with("selfsubject") {
        return true;
    }
    let group = "rbac.authorization.k8s.io";
    let everywhere = state.store.list(&format!("clusterrolebindings.{group}"), None);
    let here = (!attributes.namespace.is_empty())
        .then(|| state.store.list(&format!("rolebindings.{group}"), Some(attributes.namespace)))
        .into_iter()
        .flatten();
    everywhere.chain(here).filter(|(_, binding)| binds(binding, user)).any(|(key, binding)| {
        let role = &binding["roleRef"];
        let plural = if role["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
        let namespace = if plural == "roles" { key.namespace.as_str() } else { "" };
        let name = role["name"].as_str().unwrap_or_default();
        let mut roles = state.store.list(&format!("{plural}.{group}"), Some(namespace));
        let role = roles.find(|(key, _)| key.name == name).map(|(_, role)| role);
        role.is_some_and(|role| {
            role["rules"].as_array().into_iter().flatten().any(|rule| permits(rule, attributes))
        })
    })
}

fn binds(binding: &Value, user: &User) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == user.name,
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some("ServiceAccount") => {
                let namespace = subject["namespace"].as_str().unwrap_or_default();
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            _ => false,
        }
    })
}

fn permits(rule: &Value, attributes: &ResourceAttributes<'_>) -> bool {
    let lists = |field: &str, expected: &str| {
        rule[field].as_array().into_iter().flatten().any(|it| it == expected || it == "*")
    };
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    lists("verbs", attributes.verb)
        && lists("apiGroups", attributes.group)
        && lists("resources", attributes.resource)
        && names.is_none_or(|names| names.iter().any(|name| name == attributes.name))
}

/// Returns the response to a SelfSubjectAccessReview.
pub fn review(state: &ApiState, user: &User, body: &Value) -> Value {
    let request = &body["spec"]["resourceAttributes"];
    let text = |field: &str| request[field].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        subresource => format!("{}/{subresource}", text("resource")),
    };
    let attributes = ResourceAttributes {
        verb: text("verb"),
        group: text("group"),
        resource: &resource,
        namespace: text("namespace"),
        name: text("name"),
    };
    let mut answer = body.clone();
    answer["status"] = json!({"allowed": is_allowed(state, user, &attributes)});
    answer
}
