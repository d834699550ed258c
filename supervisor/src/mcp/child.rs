//! The process of an MCP server, in its own sandbox and process group, on this machine or in a container.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};

use super::compose::PlannedServer;
use super::sandbox::{ToolSandbox, compose_server_environment};
use crate::endpoint::ListenPlace;
use crate::failure::Failure;
use crate::homes::kept;
use crate::process::Environment;
use crate::program::{Program, ProgramEnd, ProgramKiller, ProgramSpec};
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

/// The running servers, by the order of their starts.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningServers(Arc<Mutex<Registered>>);

#[derive(Debug, Default)]
struct Registered {
    next: u64,
    running: BTreeMap<u64, ProgramKiller>,
}

impl RunningServers {
    fn with<T>(&self, f: impl FnOnce(&mut Registered) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, server: ProgramKiller) -> u64 {
        self.with(|registered| {
            registered.next += 1;
            registered.running.insert(registered.next, server);
            registered.next
        })
    }

    /// Kills every running server with its descendants.
    pub(super) fn kill(&self) {
        self.with(|registered| {
            std::mem::take(&mut registered.running).into_values().for_each(ProgramKiller::kill);
        });
    }

    /// Kills one server unless it was killed already: its process id may be reused.
    fn kill_one(&self, server: u64) {
        self.with(|registered| {
            if let Some(server) = registered.running.remove(&server) {
                server.kill();
            }
        });
    }
}

/// A running server; dropping it kills the server.
pub(super) struct ServerProcess {
    pub(super) program: Program,
    number: u64,
    running: RunningServers,
    site: Site,
}

impl ServerProcess {
    /// Starts a server where its site is; a lost container is waited for.
    pub(super) async fn start(
        server: &PlannedServer,
        server_env: &ServerEnv,
        running: &RunningServers,
    ) -> Result<Self, String> {
        let mut environment = compose_server_environment(&server_env.machine, server);
        for (variable, secret) in &server.secrets {
            let value = (server_env.secrets)(secret).ok_or_else(|| format!("missing secret `{secret}`"))?;
            environment.insert(variable.into(), value.expose_secret().into());
        }
        let mut files = Vec::new();
        for (variable, secret) in &server.secret_files {
            let paths = (server_env.secret_files)(secret).unwrap_or_default();
            let path = paths.first().ok_or_else(|| format!("secret `{secret}` has no file"))?;
            if let Site::Container(_) = server_env.site {
                return Err(format!("the file of secret `{secret}` is not in the container of the server"));
            }
            environment.insert(variable.into(), path.into());
            files.extend(paths);
        }
        let sandbox = server_env.sandbox.of(server, &files);
        let arguments: Vec<OsString> = server.args.iter().map(OsString::from).collect();
        let mut spec = ProgramSpec {
            program: &server.command,
            arguments: &arguments,
            environment: &environment,
            // Programs resolve modules and configuration in the current directory: its own, which is fresh.
            directory: &server.home.home(),
            sandbox: &sandbox,
            input: true,
        };
        let wrapper = server_env.site.confined(&spec);
        if let Some((program, arguments)) = &wrapper {
            (spec.program, spec.arguments) = (program, arguments);
        }
        let program = server_env.site.start(spec).await.map_err(|failure| failure.message)?;
        let killer = program.killer().ok_or("the server has no process id")?;
        let number = running.add(killer);
        Ok(Self { program, number, running: running.clone(), site: server_env.site.clone() })
    }

    /// Kills the server with its descendants and reaps it; returns how it exited.
    pub(super) async fn stop(mut self) -> Option<ProgramEnd> {
        self.running.kill_one(self.number);
        let ended = self.program.wait().await.ok();
        if let (Site::Container(_), Some(ProgramEnd::Exited(_))) = (&self.site, ended) {
            // Its descendants have left its process group. What remains is tried again at the end of the run.
            drop(self.site.kill_orphans().await);
        }
        ended
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.running.kill_one(self.number);
    }
}
