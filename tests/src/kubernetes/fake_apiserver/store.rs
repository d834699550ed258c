//! The objects and the history of their changes; versions grow over the whole server, as etcd's do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

/// Where an object is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// `plural.group`, or the plural alone in the core group.
    pub resource: String,
    /// Empty for what belongs to the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version it made.
    pub version: u64,
    /// Where the object is.
    pub key: Key,
    /// What it was; nothing for a new one.
    pub before: Option<Arc<Value>>,
    /// What it is; nothing once it is gone.
    pub after: Option<Arc<Value>>,
}

/// All of it.
pub struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Arc<Change>>,
    announce: watch::Sender<u64>,
}

impl Store {
    /// Nothing, at version 1.
    pub fn new() -> Self {
        Self { version: 1, objects: BTreeMap::new(), history: Vec::new(), announce: watch::Sender::new(1) }
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Tells the version after every change.
    pub fn announcements(&self) -> watch::Receiver<u64> {
        self.announce.subscribe()
    }

    /// An object.
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// The objects of a resource, in a namespace or in all.
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

    /// Everything.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The changes after a version.
    pub fn since(&self, version: u64) -> &[Arc<Change>] {
        let from = self.history.partition_point(|change| change.version <= version);
        &self.history[from..]
    }

    /// Keeps an object under a new version, which it carries from now on.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&after));
        self.record(key, before, Some(Arc::clone(&after)));
        after
    }

    /// Removes an object; what is told of it carries the version of its end.
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
