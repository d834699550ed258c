//! Users with tokens, and kubeconfig files for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

/// The test itself.
pub const ADMIN: &str = "admin";

/// The group of nodes; their requests are not recorded.
pub const NODES: &str = "system:nodes";

/// A user of the API server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// Creates a user with these groups and `system:authenticated`.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        Self { name: name.to_owned(), groups }
    }

    /// Creates the user of a service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
        Self::new(&format!("system:serviceaccount:{namespace}:{name}"), &groups)
    }

    /// Returns whether the user is in `system:masters`.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }

    /// Returns whether the user is a node.
    pub fn is_node(&self) -> bool {
        self.groups.iter().any(|group| group == NODES)
    }
}

/// The users of a control plane.
#[derive(Default)]
pub struct Users {
    tokens: Mutex<BTreeMap<String, User>>,
}

impl Users {
    /// Creates a token for a user.
    pub fn token(&self, user: User) -> String {
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), user);
        token
    }

    /// Returns the user of a token.
    pub fn of(&self, token: &str) -> Option<User> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

/// Writes a kubeconfig file (JSON is YAML).
pub fn write_kubeconfig(folder: &Path, server: &str, authority: &str, user: &str, token: &str) -> PathBuf {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}],
        "current-context": "test",
    });
    let file = folder.join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
    std::fs::write(&file, config.to_string()).expect("a kubeconfig");
    file
}
