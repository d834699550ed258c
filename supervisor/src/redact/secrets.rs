//! The secrets to look for.

use secrecy::{ExposeSecret as _, SecretString};

/// The secrets to redact, each with a label that may be shown.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    values: Vec<(String, SecretString)>,
}

impl Secrets {
    /// Creates an empty set of secrets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret with its label, such as `github token`.
    #[must_use]
    pub fn with(mut self, kind: impl Into<String>, value: SecretString) -> Self {
        self.values.push((kind.into(), value));
        self
    }

    /// Adds a secret; returns whether it is new.
    pub(super) fn add(&mut self, kind: String, value: SecretString) -> bool {
        let is_same = |(_, known): &(String, SecretString)| known.expose_secret() == value.expose_secret();
        let is_new = !self.values.iter().any(is_same);
        if is_new {
            self.values.push((kind, value));
        }
        is_new
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.values.iter().map(|(kind, value)| (kind.as_str(), value))
    }
}
