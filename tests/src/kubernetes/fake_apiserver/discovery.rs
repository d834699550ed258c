//! Discovery documents of the server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resource::{Resource, Resources, Scope};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Returns the document at a path, if it is one.
pub fn answer(path: &str, resources: &Resources) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["version"] => Some(json!({
            "major": "1", "minor": "33", "gitVersion": "v1.33.0-fake", "gitCommit": "", "gitTreeState": "",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "",
        })),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["api", version] => list("", version, resources),
        ["apis"] => {
            let groups: Vec<Value> =
                groups(resources).iter().map(|(name, versions)| group(name, versions)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let mut found = group(name, groups(resources).get(*name)?);
            found["kind"] = json!("APIGroup");
            found["apiVersion"] = json!("v1");
            Some(found)
        }
        ["apis", "authorization.k8s.io", "v1"] => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "authorization.k8s.io/v1",
            "resources": [{"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview",
                "namespaced": false, "kind": "SelfSubjectAccessReview", "verbs": ["create"]}],
        })),
        ["apis", group, version] => list(group, version, resources),
        _ => None,
    }
}

fn groups(resources: &Resources) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::from([("authorization.k8s.io".to_owned(), vec!["v1".to_owned()])]);
    for resource in resources.all().filter(|it| !it.group.is_empty()) {
        let versions: &mut Vec<String> = groups.entry(resource.group.clone()).or_default();
        if !versions.contains(&resource.version) {
            versions.push(resource.version.clone());
        }
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|it| json!({"groupVersion": format!("{name}/{it}"), "version": it})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn list(group: &str, version: &str, resources: &Resources) -> Option<Value> {
    let here: Vec<_> = resources.all().filter(|it| it.group == group && it.version == version).collect();
    let first = here.first()?;
    let entries: Vec<Value> = here.iter().flat_map(|resource| entries(resource)).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": entries,
    }))
}

fn entries(resource: &Resource) -> Vec<Value> {
    let namespaced = resource.scope == Scope::Namespace;
    let mut entries = vec![json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": namespaced,
        "kind": resource.kind, "verbs": VERBS, "shortNames": resource.short,
    })];
    for subresource in &resource.subresources {
        let verbs = if subresource == "log" { vec!["get"] } else { vec!["get", "patch", "update"] };
        entries.push(json!({
            "name": format!("{}/{subresource}", resource.plural), "singularName": "",
            "namespaced": namespaced, "kind": resource.kind, "verbs": verbs,
        }));
    }
    entries
}
