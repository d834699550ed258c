//! A server's process: in a group of its own, killed with all it started, and reaped.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret as _, SecretString};

use super::compose::PlannedServer;
use crate::process::{Child, Environment, ProcessGroup, command, spawn};

/// Where a server's secrets are read, by name, each time it is started.
pub type SecretSource = Arc<dyn Fn(&str) -> Option<SecretString> + Send + Sync>;

/// Where the file of a secret is, by name, where it has one.
pub type SecretPaths = Arc<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

/// What every server has: the environment without secrets, and where it starts.
#[derive(Clone)]
pub struct ServerEnv {
    /// The environment of every server; each has its own secrets beside it.
    pub environment: Environment,
    /// Where servers start.
    pub directory: Box<Path>,
    /// Where secrets are read.
    pub secrets: SecretSource,
    /// Where the files of secrets are.
    pub secret_files: SecretPaths,
}

/// The groups of living servers, so that all can be killed at once.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessGroups(Arc<Mutex<BTreeSet<i32>>>);

impl ProcessGroups {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Kills every living server with all it started.
    pub(super) fn kill(&self) {
        self.with(|groups| std::mem::take(groups).into_iter().for_each(kill_group));
    }

    /// Kills one group, unless that was done: its number may be another's by now.
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
        // It fails only where the group is gone, which is what is wanted.
        kill_process_group(group, Signal::KILL).ok();
    }
}

/// A living server; dropped, it is killed.
pub(super) struct ServerProcess {
    pub(super) child: Child,
    group: i32,
    groups: ProcessGroups,
}

impl ServerProcess {
    pub(super) fn start(
        server: &PlannedServer,
        ground: &ServerEnv,
        groups: &ProcessGroups,
        stderr: Stdio,
    ) -> io::Result<Self> {
        let mut environment = ground.environment.clone();
        environment.extend(server.env.iter().map(|(name, value)| (name.into(), value.into())));
        for (variable, secret) in &server.secrets {
            let value = (ground.secrets)(secret)
                .ok_or_else(|| io::Error::other(format!("the secret `{secret}` is not given")))?;
            environment.insert(variable.into(), value.expose_secret().into());
        }
        for (variable, secret) in &server.secret_files {
            let path = (ground.secret_files)(secret)
                .ok_or_else(|| io::Error::other(format!("the secret `{secret}` is not given as a file")))?;
            environment.insert(variable.into(), path.into());
        }
        let mut command = command(&server.command, &environment, ProcessGroup::New);
        command.args(&server.args).current_dir(&ground.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let child = spawn(command).map_err(|error| error.source)?;
        let group = child.pid().and_then(|id| i32::try_from(id).ok()).unwrap_or_default();
        groups.with(|groups| groups.insert(group));
        Ok(Self { child, group, groups: groups.clone() })
    }

    /// Kills the server with all it started, and reaps it.
    pub(super) async fn end(mut self) {
        self.groups.kill_one(self.group);
        self.child.wait().await.ok();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.groups.kill_one(self.group);
    }
}
