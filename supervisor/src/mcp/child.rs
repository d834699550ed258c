//! The process of an MCP server, in its own process group, which is killed as a whole.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret as _, SecretString};

use super::compose::PlannedServer;
use crate::process::{Child, Environment, ProcessGroup, command, spawn};

/// Reads a secret by name; called each time a server is started.
pub type SecretSource = Arc<dyn Fn(&str) -> Option<SecretString> + Send + Sync>;

/// Returns the file of a secret by name, if it has one.
pub type SecretPaths = Arc<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

/// The environment that all servers share.
#[derive(Clone)]
pub struct ServerEnv {
    /// The environment variables without secrets; each server gets its own secrets too.
    pub environment: Environment,
    pub directory: Box<Path>,
    pub secrets: SecretSource,
    pub secret_files: SecretPaths,
}

/// The process groups of the running servers.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessGroups(Arc<Mutex<BTreeSet<i32>>>);

impl ProcessGroups {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Kills every running server with its descendants.
    pub(super) fn kill(&self) {
        self.with(|groups| std::mem::take(groups).into_iter().for_each(kill_group));
    }

    /// Kills one group unless it was killed already: its id may be reused.
    fn kill_one(&self, group: i32) {
        self.with(|groups| {
            if groups.remove(&group) {
                kill_group(group);
            }
        });
    }
}

fn kill_group(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // Fails only if the group has exited already.
        kill_process_group(group, Signal::KILL).ok();
    }
}

/// A running server; dropping it kills the server.
pub(super) struct ServerProcess {
    pub(super) child: Child,
    group: i32,
    groups: ProcessGroups,
}

impl ServerProcess {
    pub(super) fn start(
        server: &PlannedServer,
        server_env: &ServerEnv,
        groups: &ProcessGroups,
        stderr: Stdio,
    ) -> io::Result<Self> {
        let mut environment = server_env.environment.clone();
        environment.extend(server.env.iter().map(|(name, value)| (name.into(), value.into())));
        for (variable, secret) in &server.secrets {
            let value = (server_env.secrets)(secret)
                .ok_or_else(|| io::Error::other(format!("missing secret `{secret}`")))?;
            environment.insert(variable.into(), value.expose_secret().into());
        }
        for (variable, secret) in &server.secret_files {
            let path = (server_env.secret_files)(secret)
                .ok_or_else(|| io::Error::other(format!("secret `{secret}` has no file")))?;
            environment.insert(variable.into(), path.into());
        }
        let mut command = command(&server.command, &environment, ProcessGroup::New);
        command.args(&server.args).current_dir(&server_env.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let child = spawn(command).map_err(|error| error.source)?;
        let group = child.pid().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        groups.with(|groups| groups.insert(group));
        Ok(Self { child, group, groups: groups.clone() })
    }

    /// Kills the server with its descendants and reaps it.
    pub(super) async fn stop(mut self) {
        self.groups.kill_one(self.group);
        self.child.wait().await.ok();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.groups.kill_one(self.group);
    }
}
