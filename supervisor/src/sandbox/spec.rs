//! The description of a sandbox, as data.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// What a sandbox is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// One conversation of the agent CLI, with the programs that it starts.
    Agent,
    /// The service's verify commands.
    Verify,
    /// The service's setup commands.
    Setup,
    /// An MCP server that the supervisor starts.
    Tool,
    /// A process of ours that reads and writes one directory tree for the supervisor.
    Guest,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Agent, Self::Verify, Self::Setup, Self::Tool, Self::Guest];

    /// Returns the name in text and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Verify => "verify",
            Self::Setup => "setup",
            Self::Tool => "tool",
            Self::Guest => "guest",
        }
    }
}

/// What a sandbox is made of, strongest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Its own user, mount, pid, ipc and uts namespaces.
    Namespaces,
    /// Landlock rules and a system call filter; shares the process table and devices.
    Landlock,
    /// No sandbox.
    Off,
}

impl Kind {
    /// The kinds that confine, strongest first.
    pub const CONFINING: [Self; 2] = [Self::Namespaces, Self::Landlock];

    /// Returns the name in text, flags and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Off => "off",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Namespaces, Self::Landlock, Self::Off].into_iter().find(|kind| kind.name() == name)
    }
}

/// What a sandbox can reach over the network.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkView {
    /// Everything that this machine can reach, loopback included.
    #[default]
    Open,
    /// Nothing.
    None,
}

impl NetworkView {
    /// Returns the name in text, flags and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::None => "none",
        }
    }
}

/// Resource limits of each process in a sandbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Maximum size of a core file, in bytes. It would contain credentials.
    pub core_bytes: u64,
    /// `oom_score_adj` of proc(5): above the supervisor's, so that the kernel kills these
    /// processes first and the supervisor can save their work.
    pub oom_score_adj: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self { core_bytes: 0, oom_score_adj: 500 }
    }
}

/// The description of one sandbox. Everything that it does not name is out of reach.
///
/// A path below a writable path is writable too. Missing paths are ignored.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SandboxSpec {
    pub role: Role,
    pub kind: Kind,
    /// Paths that may be read and executed.
    pub readable: Vec<PathBuf>,
    /// Paths with full access.
    pub writable: Vec<PathBuf>,
    /// Paths below readable ones that appear empty. The kind `landlock` cannot hide them.
    pub hidden: Vec<PathBuf>,
    /// Whether `/tmp` and `/dev/shm` are empty, its own, and gone with it. The kind `landlock` has
    /// no `/tmp`.
    pub private_tmp: bool,
    pub network: NetworkView,
    pub limits: Limits,
}

impl SandboxSpec {
    /// Returns an empty sandbox: nothing is visible but what the kind always has.
    #[must_use]
    pub fn new(role: Role, kind: Kind) -> Self {
        Self {
            role,
            kind,
            readable: Vec::new(),
            writable: Vec::new(),
            hidden: Vec::new(),
            private_tmp: true,
            network: NetworkView::Open,
            limits: Limits::default(),
        }
    }

    /// Adds paths that may be read and executed.
    #[must_use]
    pub fn read<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.readable.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Adds paths with full access.
    #[must_use]
    pub fn write<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.writable.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Adds a program with the directory of its executable, following links.
    #[must_use]
    pub fn read_program(mut self, program: &Path) -> Self {
        self.readable.extend(program.parent().and_then(canonical_dir));
        if let Ok(file) = std::fs::canonicalize(program) {
            self.readable.extend(file.parent().and_then(canonical_dir));
            self.readable.push(file);
        }
        self
    }
}

/// Returns a directory without links; nothing for a missing one and for the root directory.
pub(super) fn canonical_dir(directory: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(directory).ok().filter(|directory| directory.parent().is_some())
}
