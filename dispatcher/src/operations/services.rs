//! Services by the names that people write.

use std::collections::BTreeSet;

use orchestrator_contract::ServiceName;

use super::dispatcher::Dispatcher;
use crate::error::Error;
use crate::task::service_name;

impl Dispatcher {
    /// Returns the services that have runs or an entry in the configuration.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    pub async fn known_services(&self) -> Result<Vec<ServiceName>, Error> {
        let runs = self.backend.runs().await?;
        let known: BTreeSet<&ServiceName> =
            runs.iter().map(|run| &run.task.service).chain(self.config.service_names()).collect();
        Ok(known.into_iter().cloned().collect())
    }

    /// Parses the name of a service as a user wrote it.
    ///
    /// # Errors
    /// Returns an error if no name is recognized, two services may be meant, or the state cannot be read.
    pub async fn parse_service(&self, text: &str) -> Result<ServiceName, Error> {
        // An exact name has one reading.
        match ServiceName::new(text) {
            Ok(name) => Ok(name),
            Err(_) => service_name::parse(text, &self.known_services().await?),
        }
    }
}
