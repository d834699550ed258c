//! Whether anything can be done at all.

use orchestrator_contract::RunName;

use super::Dispatcher;
use crate::error::Error;

impl Dispatcher {
    /// Asks the backend the cheapest question there is: for one run.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn ready(&self) -> Result<(), Error> {
        let name = RunName::new("ready").map_err(|error| Error::invalid_request(error.to_string()))?;
        self.backend.run(&name).await.map(drop)
    }
}
