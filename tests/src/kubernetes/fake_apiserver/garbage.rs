//! What goes with what: dependents with their owners, the content of namespaces with them, and claims once
//! no pod uses them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::deletion::DeleteOptions;
use super::resource_path::ResourcePath;
use super::store::Key;
use super::world::ApiState;

/// Does what is due; each step makes a change, which brings the next.
pub fn collect(world: &mut ApiState) {
    release_foreground_and_orphans(world);
    delete_ownerless(world);
    empty_namespaces(world);
    release_claims(world);
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

fn has_finalizer(object: &Value, name: &str) -> bool {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|it| it == name)
}

/// Takes a finalizer away.
pub fn drop_finalizer(object: &mut Value, name: &str) {
    let list = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let rest: Vec<Value> = list.into_iter().filter(|it| it != name).collect();
    match object["metadata"].as_object_mut() {
        Some(metadata) if rest.is_empty() => drop(metadata.remove("finalizers")),
        Some(metadata) => drop(metadata.insert("finalizers".to_owned(), json!(rest))),
        None => {}
    }
}

/// The dependents of an owner.
fn dependents(world: &ApiState, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let uid = &owner["metadata"]["uid"];
    let of_it = world.store.all().filter(|(_, object)| owners(object).any(|it| it["uid"] == *uid));
    of_it.map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
}

/// Owners that wait for their dependents, or for being forgotten by them.
fn release_foreground_and_orphans(world: &mut ApiState) {
    let going = world.store.all().filter(|(_, it)| !it["metadata"]["deletionTimestamp"].is_null());
    let going: Vec<_> = going.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
    for (key, owner) in going {
        if has_finalizer(&owner, "orphan") {
            let uid = owner["metadata"]["uid"].clone();
            for (dependent, _) in dependents(world, &owner) {
                world.amend(&dependent, |object| forget_owner(object, &uid));
            }
            world.amend(&key, |owner| drop_finalizer(owner, "orphan"));
        } else if has_finalizer(&owner, "foregroundDeletion") {
            let left = dependents(world, &owner);
            let uid = &owner["metadata"]["uid"];
            let blocks = |object: &Value| {
                owners(object).any(|it| it["uid"] == *uid && it["blockOwnerDeletion"] == true)
            };
            if !left.iter().any(|(_, object)| blocks(object)) {
                world.amend(&key, |owner| drop_finalizer(owner, "foregroundDeletion"));
            }
            for (dependent, object) in left {
                if object["metadata"]["deletionTimestamp"].is_null() {
                    delete(world, &dependent, &DeleteOptions::foreground());
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

/// Objects all of whose owners are gone.
fn delete_ownerless(world: &mut ApiState) {
    let present: BTreeSet<(String, String)> = world
        .store
        .all()
        .map(|(key, object)| {
            (object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), key.namespace.clone())
        })
        .collect();
    let is_there = |owner: &Value, namespace: &str| {
        let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
        // An owner is in the namespace of what it owns, or in none.
        present.contains(&(uid.clone(), namespace.to_owned())) || present.contains(&(uid, String::new()))
    };
    let ownerless: Vec<Key> = world
        .store
        .all()
        .filter(|(_, object)| object["metadata"]["deletionTimestamp"].is_null())
        .filter(|(key, object)| {
            owners(object).next().is_some() && !owners(object).any(|it| is_there(it, &key.namespace))
        })
        .map(|(key, _)| key.clone())
        .collect();
    ownerless.iter().for_each(|key| delete(world, key, &DeleteOptions::background()));
}

fn empty_namespaces(world: &mut ApiState) {
    let going =
        world.store.list("namespaces", None).filter(|(_, it)| !it["metadata"]["deletionTimestamp"].is_null());
    let going: Vec<Key> = going.map(|(key, _)| key.clone()).collect();
    for namespace in going {
        let content: Vec<Key> = world
            .store
            .all()
            .filter(|(key, _)| key.namespace == namespace.name)
            .map(|(key, _)| key.clone())
            .collect();
        if content.is_empty() {
            world.amend(&namespace, |it| it["spec"]["finalizers"] = json!([]));
        }
        for key in content {
            let waits =
                world.store.get(&key).is_some_and(|it| !it["metadata"]["deletionTimestamp"].is_null());
            if !waits {
                delete(world, &key, &DeleteOptions::background());
            }
        }
    }
}

/// Claims that were deleted stay as long as there is a pod with them on a node, ended or not.
fn release_claims(world: &mut ApiState) {
    let protection = "kubernetes.io/pvc-protection";
    let going = world.store.list("persistentvolumeclaims", None);
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
        let used = world.store.list("pods", Some(&key.namespace)).any(|(_, pod)| uses(pod));
        if !used {
            world.amend(&key, |claim| drop_finalizer(claim, protection));
        }
    }
}

/// Deletes what may be gone meanwhile.
fn delete(world: &mut ApiState, key: &Key, wish: &DeleteOptions) {
    if let Some(place) = ResourcePath::of(key, &world.resources) {
        world.delete(&place, wish).ok();
    }
}
