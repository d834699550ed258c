//! What each verb does, once, for every way of asking: resolve, decide, call
//! the backend.

mod debug;
mod docs;
mod doctor;
mod follow;
mod gc;
mod query;
mod ready;
mod record;
mod stop;
mod submit;

use std::sync::Arc;

use orchestrator_contract::RunName;

pub use docs::DocsRequest;
pub use doctor::{Check, CheckStatus};
pub use follow::WaitOutcome;
pub use gc::Removal;
pub use query::{Filter, StatusMatch};
pub use record::Artifact;
pub use stop::StopOutcome;
pub use submit::{Preview, Submission, SubmitOutcome};

use crate::backend::docker::Docker;
use crate::backend::kubernetes::Kubernetes;
use crate::backend::local::Local;
use crate::backend::{Backend, StoredRun};
use crate::config::{BackendKind, Config};
use crate::error::Error;

/// The verbs, over a configuration.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    config: Arc<Config>,
    backend: Arc<dyn Backend>,
}

impl Dispatcher {
    /// The verbs for a configuration.
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

    /// The configuration in effect.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The run of a name.
    ///
    /// # Errors
    /// There is none, or its record cannot be read.
    pub async fn run(&self, name: &RunName) -> Result<StoredRun, Error> {
        self.backend.run(name).await?.ok_or_else(|| {
            Error::invalid_request(format!("there is no run `{name}` in {}", self.backend.location()))
                .with_hint("List the runs there are: dispatcher list.")
        })
    }
}
