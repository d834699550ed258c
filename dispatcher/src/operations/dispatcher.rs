//! The dispatcher: the operations over one configuration.

use std::sync::Arc;

use orchestrator_contract::RunName;

use crate::backend::docker::Docker;
use crate::backend::kubernetes::Kubernetes;
use crate::backend::local::Local;
use crate::backend::{Backend, StoredRun};
use crate::config::{BackendKind, Config};
use crate::error::Error;
use crate::task::advice::Advice;

/// The operations over one configuration and its backend.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    pub(super) config: Arc<Config>,
    pub(super) backend: Arc<dyn Backend>,
}

impl Dispatcher {
    /// Creates the dispatcher with the configured backend.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let backend: Arc<dyn Backend> = match config.backend {
            BackendKind::Local => Arc::new(Local::new(Arc::clone(&config))),
            BackendKind::Docker => Arc::new(Docker::new(Arc::clone(&config))),
            BackendKind::Kubernetes => Arc::new(Kubernetes::new(Arc::clone(&config))),
        };
        Self { config, backend }
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the run of a name.
    ///
    /// # Errors
    /// Returns an error if no such run exists or its record cannot be read.
    pub async fn run(&self, name: &RunName) -> Result<StoredRun, Error> {
        if let Some(run) = self.backend.run(name).await? {
            return Ok(run);
        }
        let runs = self.backend.runs().await?;
        let names = runs.iter().map(|run| run.task.run.as_str());
        let hint =
            Advice::after_no_match(runs.iter().map(|run| &run.task.run)).suggesting(name.as_str(), names);
        let message = format!("no run named `{name}` in {}", self.backend.location());
        Err(Error::invalid_request(message).with_hint(hint))
    }
}
