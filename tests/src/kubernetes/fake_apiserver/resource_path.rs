//! The parsed path and query of a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::Uri;

use super::resource::{Resource, Resources, Scope};
use super::store::Key;

/// An object or a collection of a resource.
#[derive(Clone)]
pub struct ResourcePath {
    pub resource: Arc<Resource>,
    /// Empty for cluster scope, or for all namespaces.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl ResourcePath {
    /// Parses a path under `/api/v1/` or `/apis/`; returns `None` if it names no resource.
    pub fn parse(path: &str, resources: &Resources) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // `namespaces/x/status` is about the namespace, `namespaces/x/pods` is not.
            ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, _, ..] => (*namespace, &rest[2..]),
            _ => ("", rest),
        };
        let [plural, tail @ ..] = rest else { return None };
        let resource = resources.find(group, version, plural)?;
        let (name, subresource) = match tail {
            [] => ("", ""),
            [name] => (*name, ""),
            [name, subresource] => (*name, *subresource),
            _ => return None,
        };
        if !subresource.is_empty() && !resource.has(subresource) {
            return None;
        }
        let in_namespace = !namespace.is_empty();
        if resource.scope == Scope::Cluster && in_namespace
            || resource.scope == Scope::Namespace && !in_namespace && !name.is_empty()
        {
            return None;
        }
        Some(Self {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }

    /// Returns the path of a stored object.
    pub fn of(key: &Key, resources: &Resources) -> Option<Self> {
        Some(Self {
            resource: resources.stored_as(&key.resource)?,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            subresource: String::new(),
        })
    }

    /// Returns the key of the stored object.
    pub fn key(&self) -> Key {
        Key {
            resource: self.resource.stored_as(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Returns the namespace; `None` for all namespaces.
    pub fn within(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|it| !it.is_empty())
    }
}

/// The query parameters of a request.
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses the query of a URI.
    pub fn parse(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decode(name), decode(value))).collect())
    }

    /// Returns a parameter; an empty value counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns whether a parameter is true.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// Returns a numeric parameter.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
