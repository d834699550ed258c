//! The sandbox and the environment of an MCP server: its own home, its own key, no other's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::catalog::WorkspaceAccess;
use super::compose::PlannedServer;
use crate::process::Environment;
use crate::sandbox::SandboxSpec;

/// Heap of a server that runs on Node, in MiB; a limit of the address space would stop Node itself.
const NODE_HEAP_MIB: u32 = 1024;

/// What the sandboxes of all servers share.
#[derive(Clone, Debug)]
pub struct ToolSandbox {
    /// The supervisor's own executable, which confines and executes servers.
    pub supervisor: PathBuf,
    /// What every server may read: system, toolchain, directories of programs.
    pub shared: SandboxSpec,
    /// The worktree, for servers that ask for it.
    pub workspace: PathBuf,
}

impl ToolSandbox {
    /// Returns the sandbox of one server, with the secret files that it may read.
    pub(super) fn of(&self, server: &PlannedServer, secret_files: &[PathBuf]) -> SandboxSpec {
        let shared = self.shared.clone();
        let own = shared
            .read(package_directories(&server.command))
            .read(server.files.keys())
            .read(secret_files)
            .write([server.home.folder()]);
        match server.workspace {
            WorkspaceAccess::None => own,
            WorkspaceAccess::Read => own.read([&self.workspace]),
            WorkspaceAccess::Write => own.write([&self.workspace]),
        }
    }
}

/// Returns the directories with the files of a program: its own, and the packages beside it.
fn package_directories(program: &Path) -> Vec<PathBuf> {
    let Ok(program) = std::fs::canonicalize(program) else { return Vec::new() };
    let mut found = vec![program.clone()];
    let parents = || program.ancestors().skip(1);
    // Node resolves dependencies in the outermost `node_modules`.
    found.extend(parents().filter(|folder| folder.ends_with("node_modules")).last().map(Path::to_owned));
    // A virtual environment of Python has its packages beside its programs.
    found.extend(parents().nth(1).filter(|folder| folder.join("pyvenv.cfg").is_file()).map(Path::to_owned));
    found
}

/// Builds the environment of one server from scratch, without its secrets.
///
/// `machine` are the variables that describe the machine, with the search path.
pub(super) fn compose_server_environment(machine: &Environment, server: &PlannedServer) -> Environment {
    let mut environment = machine.clone();
    let home = &server.home;
    let mut set = |name: &str, value: OsString| environment.insert(name.into(), value);
    set("LANG", "C.UTF-8".into());
    set("HOME", home.home().into());
    set("TMPDIR", home.tmp().into());
    set("XDG_CACHE_HOME", home.cache().into());
    set("npm_config_cache", home.cache().join("npm").into());
    set("NODE_OPTIONS", format!("--max-old-space-size={NODE_HEAP_MIB}").into());
    environment.extend(server.env.iter().map(|(name, value)| (name.into(), value.into())));
    environment
}

/// Removes the directories of a search path that are relative or below `workspace`.
///
/// The agent can write there, and a server would execute what it wrote.
#[must_use]
pub fn trusted_search_path(search_path: &OsStr, workspace: &Path) -> OsString {
    let real = std::fs::canonicalize(workspace).unwrap_or_else(|_| workspace.to_owned());
    let is_trusted = |folder: &PathBuf| {
        let target = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let below = |path: &Path| path.starts_with(workspace) || path.starts_with(&real);
        folder.is_absolute() && !below(folder) && !below(&target)
    };
    // Only a directory with a colon cannot be joined; none comes from `split_paths`.
    std::env::join_paths(std::env::split_paths(search_path).filter(is_trusted)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_path_has_no_directory_of_workspace() {
        let workspace = tempfile::tempdir().unwrap();
        let bin = workspace.path().join("target-repo/bin");
        std::fs::create_dir_all(&bin).unwrap();
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().join("bin");
        std::os::unix::fs::symlink(&bin, &link).unwrap();
        let path = format!("{}:node_modules/.bin::{}:/usr/bin", bin.display(), link.display());
        assert_eq!(trusted_search_path(OsStr::new(&path), workspace.path()), "/usr/bin");
    }

    #[test]
    fn node_package_includes_its_dependencies() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().canonicalize().unwrap().join("lib/node_modules");
        let script = modules.join("@x/server/node_modules/y/index.js");
        std::fs::create_dir_all(script.parent().unwrap()).unwrap();
        std::fs::write(&script, "").unwrap();
        let link = folder.path().join("server");
        std::os::unix::fs::symlink(&script, &link).unwrap();
        assert_eq!(package_directories(&link), [script, modules]);
    }
}
