//! Objects and the history of their changes. Versions increase over the whole server, as in etcd.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

/// The key of an object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// `plural.group`, or only the plural in the core group.
    pub resource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

/// A change of an object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version of the change.
    pub version: u64,
    pub key: Key,
    /// `None` for a new object.
    pub before: Option<Arc<Value>>,
    /// `None` for a deleted object.
    pub after: Option<Arc<Value>>,
}

pub struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Arc<Change>>,
    announce: watch::Sender<u64>,
}

impl Store {
    /// Creates an empty store at version 1.
    pub fn new() -> Self {
        Self { version: 1, objects: BTreeMap::new(), history: Vec::new(), announce: watch::Sender::new(1) }
    }

    /// Returns the version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns a channel with the latest version.
    pub fn announcements(&self) -> watch::Receiver<u64> {
        self.announce.subscribe()
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Returns the objects of a resource, in one namespace or in all.
    pub fn list<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + use<'a> {
        let start = Key {
            resource: resource.to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        let (resource, namespace) = (resource.to_owned(), namespace.map(str::to_owned));
        self.objects.range(start..).take_while(move |(key, _)| {
            key.resource == resource && namespace.as_ref().is_none_or(|it| *it == key.namespace)
        })
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// Returns the changes after a version.
    pub fn since(&self, version: u64) -> &[Arc<Change>] {
        let from = self.history.partition_point(|change| change.version <= version);
        &self.history[from..]
    }

    /// Stores an object under a new version.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&after));
        self.record(key, before, Some(Arc::clone(&after)));
        after
    }

    /// Removes an object; its last state carries the version of the removal.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let mut last = Value::clone(self.objects.remove(key)?.as_ref());
        self.version += 1;
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Arc::new(last);
        self.record(key.clone(), Some(Arc::clone(&last)), None);
        Some(last)
    }

    fn record(&mut self, key: Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        self.history.push(Arc::new(Change { version: self.version, key, before, after }));
        self.announce.send_replace(self.version);
    }
}
