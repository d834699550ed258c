//! Third-party programs, installed into `target/tools/` from the lock file of `tests/tools/`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// The version of rustdoc-mcp that `mcp-configs/` expects.
const RUSTDOC_MCP: &str = "0.10.0";

/// Paths of the tools.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The Claude Code CLI.
    pub claude: PathBuf,
    /// Directory of `mcp-server-memory`, `brave-search-mcp-server` and `kubernetes-mcp-server`.
    pub bin: PathBuf,
    /// The rustdoc MCP server, if installed; see [`Tools::install_rustdocs`].
    pub rustdoc_mcp: Option<PathBuf>,
}

impl Tools {
    /// Returns the tools, and installs them with npm if the lock file changed.
    ///
    /// # Panics
    ///
    /// Panics if npm cannot install them.
    pub fn get() -> &'static Self {
        static TOOLS: OnceLock<Tools> = OnceLock::new();
        TOOLS.get_or_init(|| fetch(&folder()).expect("npm fetches the tools"))
    }

    /// Builds the rustdoc MCP server unless it exists; takes minutes.
    ///
    /// # Panics
    ///
    /// Panics if cargo cannot build it.
    pub fn install_rustdocs() -> PathBuf {
        install_rustdocs(&folder()).expect("cargo installs rustdoc-mcp")
    }
}

fn fetch(folder: &Path) -> Result<Tools> {
    let modules = npm(folder, "tools")?;
    let claude = modules.join("@anthropic-ai/claude-code-linux-x64/claude");
    ensure!(claude.exists(), "{} is missing: the CLI comes for Linux on x86-64 only", claude.display());
    let bin = modules.join(".bin");
    // A program without a wrapper, as in the agent image.
    let kubernetes = "kubernetes-mcp-server-linux-amd64";
    match symlink(modules.join(kubernetes).join("bin").join(kubernetes), bin.join("kubernetes-mcp-server")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let rustdoc_mcp = Some(rustdoc_mcp(folder)).filter(|program| program.exists());
    Ok(Tools { claude, bin, rustdoc_mcp })
}

/// Installs the lock file of `wanted`, a directory of this package, and returns the installation directory.
pub(crate) fn npm(folder: &Path, package: &str) -> Result<PathBuf> {
    let _alone = lock(folder, "npm.lock")?;
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join(package);
    once(&folder.join("npm.stamp"), &package.join("package-lock.json"), || {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(package.join(file), folder.join(file))?;
        }
        let mut npm = Command::new("npm");
        run(npm.current_dir(folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))
    })?;
    Ok(folder.join("node_modules"))
}

/// Runs `work` unless `stamp` records that it was done for this lock file.
pub(crate) fn once(stamp: &Path, lock_file: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let content = fs::read(lock_file)?;
    if fs::read(stamp).ok().as_ref() != Some(&content) {
        if stamp.exists() {
            fs::remove_file(stamp)?;
        }
        work()?;
        fs::write(stamp, &content)?;
    }
    Ok(())
}

fn install_rustdocs(folder: &Path) -> Result<PathBuf> {
    let _alone = lock(folder, "cargo.lock")?;
    let program = rustdoc_mcp(folder);
    if !program.exists() {
        let mut cargo = crate::binaries::cargo();
        cargo.args(["install", "rustdoc-mcp", "--version", RUSTDOC_MCP, "--locked", "--root"]).arg(folder);
        // Not in the workspace's target directory, and without the variables of `cargo test`.
        cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        run(&mut cargo)?;
    }
    Ok(program)
}

fn rustdoc_mcp(folder: &Path) -> PathBuf {
    folder.join("bin/rustdoc-mcp")
}

/// Returns `target/tools/`.
pub(crate) fn folder() -> PathBuf {
    crate::binaries::target_folder().join("tools")
}

/// Acquires a file lock, released when the returned file is dropped or the process exits.
pub(crate) fn lock(folder: &Path, name: &str) -> Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join(name))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    Ok(())
}
