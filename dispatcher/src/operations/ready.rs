//! Readiness of the backend.

use orchestrator_contract::RunName;

use super::dispatcher::Dispatcher;
use crate::error::Error;

impl Dispatcher {
    /// Checks that the backend responds, by looking up one run.
    ///
    /// # Errors
    /// Returns an error if the backend is unreachable.
    pub async fn ready(&self) -> Result<(), Error> {
        let name = RunName::new("ready").map_err(|error| Error::invalid_request(error.to_string()))?;
        self.backend.run(&name).await.map(drop)
    }
}
