//! Connection to the cluster: calls with a timeout, and errors with hints.

use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client};
use orchestrator_contract::{Reason, RunName};
use tokio::sync::OnceCell;

use crate::cluster;
use crate::config::Config;
use crate::config::kubernetes::KubernetesSettings;
use crate::error::Error;
use crate::taskrun::definition::TaskRun;

/// Timeout of one call, so that an unresponsive cluster does not block a command.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to the configured cluster, opened by the first call. Clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) config: Arc<Config>,
    client: Arc<OnceCell<Client>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("namespace", &self.settings().namespace).finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config, client: Arc::default() }
    }

    pub(super) fn settings(&self) -> &KubernetesSettings {
        self.config.kubernetes()
    }

    pub(super) async fn client(&self) -> Result<Client, Error> {
        let connect = || cluster::connect(self.settings(), &self.config.environment);
        self.client.get_or_try_init(connect).await.cloned()
    }

    pub(super) async fn api<K>(&self) -> Result<Api<K>, Error>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Ok(Api::namespaced(self.client().await?, &self.settings().namespace))
    }

    /// Awaits a call with a timeout and converts its error.
    pub(super) async fn call<T>(
        &self,
        action: &str,
        future: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<T, Error> {
        self.call_raw(action, future)
            .await?
            .map_err(|error| cluster::to_error(action, &error, self.settings()))
    }

    /// Awaits a call with a timeout and returns its error unconverted.
    pub(super) async fn call_raw<T>(
        &self,
        action: &str,
        future: impl Future<Output = Result<T, kube::Error>> + Send,
    ) -> Result<Result<T, kube::Error>, Error> {
        tokio::time::timeout(CALL_TIMEOUT, future).await.map_err(|_| {
            let message =
                format!("cannot {action}: the cluster did not respond within {} s", CALL_TIMEOUT.as_secs());
            Error::new(Reason::RemoteUnavailable, message).with_hint(cluster::CONNECTION_HINT)
        })
    }

    /// Returns the TaskRuns that match a label selector, or all of them.
    pub(super) async fn list(&self, selector: Option<&str>) -> Result<Vec<TaskRun>, Error> {
        let parameters = match selector {
            Some(selector) => ListParams::default().labels(selector),
            None => ListParams::default(),
        };
        let api = self.api::<TaskRun>().await?;
        Ok(self.call("list runs", api.list(&parameters)).await?.items)
    }

    pub(super) async fn find(&self, name: &RunName) -> Result<Option<TaskRun>, Error> {
        let api = self.api::<TaskRun>().await?;
        self.call("get the run", api.get_opt(name.as_str())).await
    }
}
