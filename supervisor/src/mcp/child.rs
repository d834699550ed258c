//! The process of an MCP server, in its own sandbox and process group, which is killed as a whole.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};

use super::compose::PlannedServer;
use super::sandbox::{ToolSandbox, compose_server_environment};
use crate::endpoint::ListenPlace;
use crate::failure::Failure;
use crate::homes::kept;
use crate::process::{Child, Environment, Exit, kill_tree, spawn};
use crate::sandbox::confined_command;
use crate::site::Site;
use crate::workspace::fetch::blocking;
use orchestrator_contract::Reason;

/// Reads a secret by name; called each time a server is started.
pub type SecretSource = Arc<dyn Fn(&str) -> Option<SecretString> + Send + Sync>;

/// Returns the file of a secret by name, if it has one, and the files that it refers to.
pub type SecretPaths = Arc<dyn Fn(&str) -> Option<Vec<PathBuf>> + Send + Sync>;

/// The environment that all servers share.
#[derive(Clone)]
pub struct ServerEnv {
    /// The variables that describe the machine, with the search path; no secret is among them.
    pub machine: Environment,
    pub sandbox: ToolSandbox,
    /// Where the servers run.
    pub site: Site,
    /// Where those of the agent's sandbox run, if it is a container.
    pub agent: Option<AgentPlace>,
    /// Where the agent connects to the relay.
    pub listen: ListenPlace,
    /// The directory of kept files, with a subdirectory for each server.
    pub kept: PathBuf,
    pub secrets: SecretSource,
    pub secret_files: SecretPaths,
}

/// Container of the agent, for the servers that run there.
#[derive(Clone, Debug)]
pub struct AgentPlace {
    pub site: Site,
    /// The variables that describe it, with the search path.
    pub variables: Environment,
}

impl ServerEnv {
    /// Copies the kept files of a server into its fresh home.
    ///
    /// # Errors
    /// Returns an error if a file cannot be copied.
    pub async fn restore_kept(&self, server: &PlannedServer) -> Result<(), Failure> {
        let (store, names, home) = (self.kept.join(&server.name), server.keep.clone(), server.home.clone());
        let site = self.site.clone();
        blocking(move || {
            let guest = site.open(home.folder())?;
            kept::restore(&store, &names, &home, &guest)
                .map_err(|error| Failure::from_error(Reason::IoError, &error))
        })
        .await
    }

    /// Stores the kept files of a server, after its processes have exited.
    pub(super) async fn collect_kept(&self, server: &PlannedServer) {
        if server.keep.is_empty() {
            return;
        }
        let (store, names, home) = (self.kept.join(&server.name), server.keep.clone(), server.home.clone());
        let site = self.site.clone();
        let collected = blocking(move || {
            let guest = site.open(home.folder())?;
            Ok(kept::collect(&store, &names, &home, &guest))
        });
        for problem in collected.await.unwrap_or_else(|failure| vec![failure.message]) {
            tracing::warn!(server = server.name, problem, "a file of an MCP server is not kept");
        }
    }
}

/// The running servers, by process id.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningServers(Arc<Mutex<BTreeSet<u32>>>);

impl RunningServers {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeSet<u32>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Kills every running server with its descendants.
    pub(super) fn kill(&self) {
        self.with(|running| std::mem::take(running).into_iter().for_each(kill_tree));
    }

    /// Kills one server unless it was killed already: its id may be reused.
    fn kill_one(&self, server: u32) {
        self.with(|running| {
            if running.remove(&server) {
                kill_tree(server);
            }
        });
    }
}

/// A running server; dropping it kills the server.
pub(super) struct ServerProcess {
    pub(super) child: Child,
    pid: u32,
    running: RunningServers,
}

impl ServerProcess {
    pub(super) fn start(
        server: &PlannedServer,
        server_env: &ServerEnv,
        running: &RunningServers,
        stderr: Stdio,
    ) -> io::Result<Self> {
        let mut environment = compose_server_environment(&server_env.machine, server);
        for (variable, secret) in &server.secrets {
            let value = (server_env.secrets)(secret)
                .ok_or_else(|| io::Error::other(format!("missing secret `{secret}`")))?;
            environment.insert(variable.into(), value.expose_secret().into());
        }
        let mut files = Vec::new();
        for (variable, secret) in &server.secret_files {
            let paths = (server_env.secret_files)(secret).unwrap_or_default();
            let path =
                paths.first().ok_or_else(|| io::Error::other(format!("secret `{secret}` has no file")))?;
            environment.insert(variable.into(), path.into());
            files.extend(paths);
        }
        let sandbox = server_env.sandbox.of(server, &files);
        let arguments: Vec<OsString> = server.args.iter().map(OsString::from).collect();
        let supervisor: &Path = &server_env.sandbox.supervisor;
        let mut command = confined_command(supervisor, &sandbox, &server.command, &arguments, &environment);
        // Programs resolve modules and configuration in the current directory: its own, which is fresh.
        command.current_dir(server.home.home());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let child = spawn(command).map_err(|error| error.source)?;
        let pid = child.pid().ok_or_else(|| io::Error::other("the server has no process id"))?;
        running.with(|running| running.insert(pid));
        Ok(Self { child, pid, running: running.clone() })
    }

    /// Kills the server with its descendants and reaps it; returns how it exited.
    pub(super) async fn stop(mut self) -> Option<Exit> {
        self.running.kill_one(self.pid);
        self.child.wait().await.ok()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.running.kill_one(self.pid);
    }
}
