//! Caches of tools: a trusted seed, and a private layer of every sandbox.
//!
//! Only setup commands on the base branch write the trusted caches ([`trusted_environment`]). Every
//! other sandbox gets directories of its own ([`seed`]): downloads are links to the trusted files,
//! which it can read and not write, and what tools change in place is copied. Configuration of a tool
//! (`config.toml`, `bin`) is never taken along, and nothing comes back.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use orchestrator_contract::layout::Layout;
use rustix::fs::OFlags;

use crate::homes::Home;
use crate::process::Environment;
use crate::program::ProgramSpec;
use crate::sandbox::{Kind, Role, SandboxSpec};
use crate::site::Site;

/// How long private caches may delay a program in a container.
const SEED_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum entries of all caches of a sandbox; further ones are left out.
pub(super) const MAX_ENTRIES: u64 = 200_000;

/// Maximum bytes that are copied for a sandbox; further files are left out.
const MAX_COPIED_BYTES: u64 = 256 * 1024 * 1024;

/// Maximum depth of a directory in a cache.
pub(super) const MAX_DEPTH: usize = 32;

/// What a sandbox gets of one entry of a trusted cache.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Share {
    /// A directory of its own, with shares of the content.
    Enter,
    /// A link: nothing changes it in place.
    Link,
    /// A copy, because the tool changes it in place.
    Copy,
    /// Nothing.
    None,
}

/// A tool with a cache: the directory's name, its environment variable, and what is shared of it.
pub(super) struct Tool {
    pub(super) name: &'static str,
    variable: &'static str,
    pub(super) share: fn(path: &str, is_folder: bool) -> Share,
}

pub(super) const TOOLS: [Tool; 4] = [
    Tool { name: "cargo", variable: "CARGO_HOME", share: share_cargo },
    Tool { name: "npm", variable: "npm_config_cache", share: share_npm },
    Tool { name: "pip", variable: "PIP_CACHE_DIR", share: share_pip },
    Tool { name: "go", variable: "GOMODCACHE", share: share_go },
];

/// Shares downloads and unpacked sources of registries. Git dependencies are fetched again.
fn share_cargo(path: &str, is_folder: bool) -> Share {
    let parts: Vec<&str> = path.split('/').collect();
    match (parts.as_slice(), is_folder) {
        (["registry"] | ["registry", "cache" | "src", ..], true) if parts.len() < 4 => Share::Enter,
        (["registry", "index", ..], true) => Share::Enter,
        (["registry", "index", .., _], false) => Share::Copy,
        // One link for each crate: it is complete, or cargo ignores it.
        (["registry", "src", _, _], true) => Share::Link,
        (["registry", "cache", _, file], false) if file.ends_with(".crate") => Share::Link,
        _ => Share::None,
    }
}

/// Shares the content by hash, and a copy of the index.
fn share_npm(path: &str, is_folder: bool) -> Share {
    match (path.split('/').take(2).collect::<Vec<_>>().as_slice(), is_folder) {
        (["_cacache"] | ["_cacache", "content-v2" | "index-v5"], true) => Share::Enter,
        (["_cacache", "content-v2"], false) => Share::Link,
        (["_cacache", "index-v5"], false) => Share::Copy,
        _ => Share::None,
    }
}

/// Shares responses and wheels; pip replaces files as a whole.
fn share_pip(_: &str, is_folder: bool) -> Share {
    if is_folder { Share::Enter } else { Share::Link }
}

/// Shares downloads and unpacked modules, whose directories are named `{module}@{version}`.
fn share_go(path: &str, is_folder: bool) -> Share {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_download = path.starts_with("cache/download/");
    match is_folder {
        true if path == "cache/vcs" => Share::None,
        true if !is_download && name.contains('@') => Share::Link,
        true => Share::Enter,
        false if is_download && !name.ends_with(".lock") => Share::Link,
        false => Share::None,
    }
}

/// Returns the variables with which setup commands on the base fill the trusted caches.
///
/// # Errors
/// Returns an error if the directories cannot be created.
pub fn trusted_environment(layout: &Layout) -> io::Result<Environment> {
    let root = layout.trusted_caches();
    fs::create_dir_all(&root)?;
    let mut environment = Environment::new();
    for tool in &TOOLS {
        let folder = root.join(tool.name);
        fs::create_dir_all(&folder)?;
        environment.insert(tool.variable.into(), folder.into());
    }
    Ok(environment)
}

/// Returns the variables of a sandbox with its caches in the directory `own`.
#[must_use]
pub fn environment(own: &Path) -> Environment {
    TOOLS.iter().map(|tool| (tool.variable.into(), own.join(tool.name).into())).collect()
}

/// Creates the private caches of a fresh home, where its programs run, before a program runs there.
pub async fn seed_home(site: &Site, trusted: &Path, home: &Home) {
    let (trusted, own) = (trusted.to_owned(), home.cache());
    match site {
        Site::Machine { .. } => {
            // Without caches, tools download again.
            drop(tokio::task::spawn_blocking(move || seed(&trusted, &own)).await);
        }
        Site::Container(_) => {
            let supervisor = site.supervisor();
            let arguments = [
                SEED_SUBCOMMAND.into(),
                "--from".into(),
                trusted.into_os_string(),
                "--to".into(),
                own.into_os_string(),
            ];
            let spec = ProgramSpec {
                program: &supervisor,
                arguments: &arguments,
                environment: &Environment::new(),
                directory: Path::new("/"),
                sandbox: &SandboxSpec::new(Role::Setup, Kind::Off),
                input: false,
            };
            if let Ok(mut program) = site.start(spec).await {
                drop(tokio::time::timeout(SEED_TIMEOUT, program.wait()).await);
            }
        }
    }
}

/// Creates the private caches of a sandbox in its directory `own`, before a program runs there.
///
/// A cache that cannot be shared is empty. The sandbox needs read access to the directory `trusted`
/// ([`Layout::trusted_caches`]).
pub fn seed(trusted: &Path, own: &Path) {
    let mut seeding = Seeding { entries: 0, copied: 0 };
    for tool in &TOOLS {
        let folder = own.join(tool.name);
        if create_folder(&folder).is_ok() {
            let source = trusted.join(tool.name);
            // A partial cache is a cache, too.
            drop(seeding.folder(&source, &folder, &mut String::new(), 0, tool.share));
        }
    }
}

/// Internal subcommand that seeds caches in another container, as [`seed`] does here.
pub const SEED_SUBCOMMAND: &str = "seed-caches";

/// Entry point of the subcommand: `--from DIR --to DIR`.
#[must_use]
pub fn seed_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let [from_flag, from, to_flag, to] = arguments.as_slice() else { return ExitCode::FAILURE };
    if from_flag != "--from" || to_flag != "--to" || !Path::new(to).is_dir() {
        return ExitCode::FAILURE;
    }
    seed(Path::new(from), Path::new(to));
    ExitCode::SUCCESS
}

struct Seeding {
    entries: u64,
    copied: u64,
}

impl Seeding {
    fn folder(
        &mut self,
        source: &Path,
        target: &Path,
        path: &mut String,
        depth: usize,
        share: fn(&str, bool) -> Share,
    ) -> io::Result<()> {
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            // Links are not followed, and no tool has such names.
            let (kind, name) = (entry.file_type()?, entry.file_name());
            let Some(name) = name.to_str().filter(|_| kind.is_dir() || kind.is_file()) else { continue };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            let length = path.len();
            if length > 0 {
                path.push('/');
            }
            path.push_str(name);
            let (from, to) = (entry.path(), target.join(name));
            let shared = match share(path, kind.is_dir()) {
                Share::Enter if depth < MAX_DEPTH => {
                    create_folder(&to).and_then(|()| self.folder(&from, &to, path, depth + 1, share))
                }
                Share::Link => symlink(&from, &to),
                Share::Copy => self.copy(&from, &to),
                Share::Enter | Share::None => Ok(()),
            };
            path.truncate(length);
            if shared.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::QuotaExceeded) {
                return shared;
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut source = fs::OpenOptions::new().read(true).custom_flags(nofollow()).open(from)?;
        self.copied = self.copied.saturating_add(source.metadata()?.len());
        if self.copied > MAX_COPIED_BYTES {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut target = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
        io::copy(&mut source, &mut target).map(|_| ())
    }
}

fn nofollow() -> i32 {
    i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default()
}

fn create_folder(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

/// Returns the file that records for which base and commands the trusted caches were filled.
#[must_use]
pub fn filled_record(layout: &Layout) -> PathBuf {
    layout.supervisor_dir().join("caches.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "trusted").unwrap();
    }

    #[test]
    fn private_caches_share_downloads_without_configuration() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let trusted = layout.trusted_caches();
        let shared = [
            "cargo/registry/cache/index-1/a-1.0.0.crate",
            "cargo/registry/src/index-1/a-1.0.0/src/lib.rs",
            "cargo/registry/index/index-1/.cache/3/a/abc",
            "npm/_cacache/content-v2/sha512/00/11/22",
            "npm/_cacache/index-v5/00/11/22",
            "pip/http-v2/a/b/c",
            "go/cache/download/example.org/a/@v/v1.0.0.zip",
            "go/example.org/a@v1.0.0/a.go",
        ];
        let private = [
            "cargo/config.toml",
            "cargo/bin/cargo-x",
            "cargo/credentials.toml",
            "cargo/registry/cache/config.toml",
            "npm/_logs/log",
            "go/cache/download/example.org/a/@v/v1.0.0.lock",
            "go/cache/vcs/x",
        ];
        for file in shared.iter().chain(&private) {
            write(&trusted.join(file));
        }
        symlink("/etc", trusted.join("pip/link")).unwrap();
        let own = root.path().join("own");
        fs::create_dir(&own).unwrap();
        seed(&trusted, &own);
        let environment = environment(&own);
        let cargo_home = environment.get(std::ffi::OsStr::new("CARGO_HOME")).unwrap();
        assert_eq!(Path::new(cargo_home), own.join("cargo"));
        for file in shared {
            assert_eq!(fs::read_to_string(own.join(file)).unwrap(), "trusted", "{file}");
        }
        for file in private.iter().chain(&["pip/link"]) {
            assert!(own.join(file).symlink_metadata().is_err(), "{file}");
        }
        let index = own.join("cargo/registry/index/index-1/.cache/3/a/abc");
        fs::write(&index, "private").unwrap();
        assert_eq!(fs::read_to_string(trusted.join(shared[2])).unwrap(), "trusted");
        assert!(own.join("cargo/registry/src/index-1/a-1.0.0").is_symlink(), "one link for each crate");
    }

    #[test]
    fn private_caches_without_trusted_ones_are_empty() {
        let root = tempfile::tempdir().unwrap();
        seed(&root.path().join("none"), root.path());
        assert_eq!(fs::read_dir(root.path().join("cargo")).unwrap().count(), 0);
    }
}
