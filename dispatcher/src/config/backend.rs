//! The selectable backends.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// Backend that executes runs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum BackendKind {
    /// Supervised processes on this machine.
    #[default]
    Local,
    /// Docker or podman containers.
    Docker,
    /// Jobs of a Kubernetes cluster.
    Kubernetes,
}

impl BackendKind {
    /// Returns the name used in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        clap::ValueEnum::from_str(text, false)
            .map_err(|_| format!("unknown backend `{text}`: use `local`, `docker` or `kubernetes`"))
    }
}
