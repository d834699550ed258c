//! Garbage collection: dependents of deleted owners, content of namespaces, and unused claims.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::api_state::ApiState;
use super::deletion::DeleteOptions;
use super::resource_path::ResourcePath;
use super::store::Key;

/// Performs all due steps; each change can make another step due.
pub fn collect(state: &mut ApiState) {
    release_foreground_and_orphans(state);
    delete_ownerless(state);
    empty_namespaces(state);
    release_claims(state);
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|it| it == name)
}

/// Removes a finalizer.
pub fn drop_finalizer(object: &mut Value, name: &str) {
    let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let rest: Vec<Value> = list.into_iter().filter(|it| it != name).collect();
    match object["metadata"].as_object_mut() {
        Some(metadata) if rest.is_empty() => drop(metadata.remove("finalizers")),
        Some(metadata) => drop(metadata.insert("finalizers".to_owned(), json!(rest))),
        None => {}
    }
}

/// Returns the dependents of an owner.
fn dependents(state: &ApiState, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let uid = &owner["metadata"]["uid"];
    let of_it = state.store.all().filter(|(_, object)| owners(object).any(|it| it["uid"] == *uid));
    of_it.map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
}

/// Releases owners that wait for foreground deletion or for orphaning.
fn release_foreground_and_orphans(state: &mut ApiState) {
    let going = state.store.all().filter(|(_, it)| !it["metadata"]["deletionTimestamp"].is_null());
    let going: Vec<_> = going.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
    for (key, owner) in going {
        if has_finalizer(&owner, "orphan") {
            let uid = owner["metadata"]["uid"].clone();
            for (dependent, _) in dependents(state, &owner) {
                state.amend(&dependent, |object| forget_owner(object, &uid));
            }
            state.amend(&key, |owner| drop_finalizer(owner, "orphan"));
        } else if has_finalizer(&owner, "foregroundDeletion") {
            let left = dependents(state, &owner);
            let uid = &owner["metadata"]["uid"];
            let blocks = |object: &Value| {
                owners(object).any(|it| it["uid"] == *uid && it["blockOwnerDeletion"] == true)
            };
            if !left.iter().any(|(_, object)| blocks(object)) {
                state.amend(&key, |owner| drop_finalizer(owner, "foregroundDeletion"));
            }
            for (dependent, object) in left {
                if object["metadata"]["deletionTimestamp"].is_null() {
                    delete(state, &dependent, &DeleteOptions::foreground());
                }
            }
        }
    }
}

fn forget_owner(object: &mut Value, uid: &Value) {
    let rest: Vec<Value> = owners(object).filter(|it| it["uid"] != *uid).cloned().collect();
    match object["metadata"].as_object_mut() {
        Some(metadata) if rest.is_empty() => drop(metadata.remove("ownerReferences")),
        Some(metadata) => drop(metadata.insert("ownerReferences".to_owned(), json!(rest))),
        None => {}
    }
}

/// Deletes objects whose owners are all deleted.
fn delete_ownerless(state: &mut ApiState) {
    let present: BTreeSet<(String, String)> = state
        .store
        .all()
        .map(|(key, object)| {
            (object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), key.namespace.clone())
        })
        .collect();
    let is_there = |owner: &Value, namespace: &str| {
        let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
        // An owner is in the namespace of its dependent, or cluster-scoped.
        present.contains(&(uid.clone(), namespace.to_owned())) || present.contains(&(uid, String::new()))
    };
    let ownerless: Vec<Key> = state
        .store
        .all()
        .filter(|(_, object)| object["metadata"]["deletionTimestamp"].is_null())
        .filter(|(key, object)| {
            owners(object).next().is_some() && !owners(object).any(|it| is_there(it, &key.namespace))
        })
        .map(|(key, _)| key.clone())
        .collect();
    ownerless.iter().for_each(|key| delete(state, key, &DeleteOptions::background()));
}

fn empty_namespaces(state: &mut ApiState) {
    let going =
        state.store.list("namespaces", None).filter(|(_, it)| !it["metadata"]["deletionTimestamp"].is_null());
    let going: Vec<Key> = going.map(|(key, _)| key.clone()).collect();
    for namespace in going {
        let content: Vec<Key> = state
            .store
            .all()
            .filter(|(key, _)| key.namespace == namespace.name)
            .map(|(key, _)| key.clone())
            .collect();
        if content.is_empty() {
            state.amend(&namespace, |it| it["spec"]["finalizers"] = json!([]));
        }
        for key in content {
            let waits =
                state.store.get(&key).is_some_and(|it| !it["metadata"]["deletionTimestamp"].is_null());
            if !waits {
                delete(state, &key, &DeleteOptions::background());
            }
        }
    }
}

/// Deleted claims stay while a pod on a node uses them, terminated or not.
fn release_claims(state: &mut ApiState) {
    let protection = "kubernetes.io/pvc-protection";
    let going = state.store.list("persistentvolumeclaims", None);
    let going: Vec<Key> = going
        .filter(|(_, it)| !it["metadata"]["deletionTimestamp"].is_null() && has_finalizer(it, protection))
        .map(|(key, _)| key.clone())
        .collect();
    for key in going {
        let uses = |pod: &Value| {
            let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            let placed = pod["spec"]["nodeName"].as_str().is_some_and(|it| !it.is_empty());
            placed && volumes.any(|it| it["persistentVolumeClaim"]["claimName"] == key.name.as_str())
        };
        let used = state.store.list("pods", Some(&key.namespace)).any(|(_, pod)| uses(pod));
        if !used {
            state.amend(&key, |claim| drop_finalizer(claim, protection));
        }
    }
}

/// Deletes an object that may be deleted already.
fn delete(state: &mut ApiState, key: &Key, delete_options: &DeleteOptions) {
    if let Some(path) = ResourcePath::of(key, &state.resources) {
        state.delete(&path, delete_options).ok();
    }
}
