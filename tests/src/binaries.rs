//! The workspace's programs, built once per test process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub supervisor: PathBuf,
    pub dispatcher: PathBuf,
}

impl Binaries {
    /// Builds the programs in the profile of the caller and returns their paths.
    ///
    /// # Panics
    ///
    /// Panics if they do not build.
    pub fn get() -> &'static Self {
        static BINARIES: OnceLock<Binaries> = OnceLock::new();
        BINARIES.get_or_init(|| build().expect("cargo builds the workspace's programs"))
    }
}

/// Runs `cargo build`. Cargo releases its lock on the target directory before it runs tests: no deadlock.
fn build() -> Result<Binaries> {
    let mut cargo = cargo();
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stderr(Stdio::inherit());
    cargo.args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(target_folder());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().context("cargo build")?;
    ensure!(output.status.success(), "cargo build: {}", output.status);

    let messages = output.stdout.split(|&byte| byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut programs: HashMap<String, PathBuf> = messages
        .filter_map(|message| {
            let program = PathBuf::from(message["executable"].as_str()?);
            Some((message["target"]["name"].as_str()?.to_owned(), program))
        })
        .collect();
    let mut program = |name: &str| programs.remove(name).with_context(|| format!("cargo built no {name}"));
    Ok(Binaries { supervisor: program("supervisor")?, dispatcher: program("dispatcher")? })
}

/// Returns the cargo that runs this test, or else the one that compiled it.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()))
}

/// Returns the target directory of the running program.
pub(crate) fn target_folder() -> PathBuf {
    let program = std::env::current_exe().expect("the running program's path");
    // target/<profile>/deps/<test>, or target/<profile>/<program>, with or without a triple.
    let marked = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    let target = program
        .ancestors()
        .find(marked)
        .unwrap_or(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")));
    target.to_owned()
}
