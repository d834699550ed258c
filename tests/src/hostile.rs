//! Records the attacks of the suite `hostile` for the table in `docs/security.md`.
//!
//! A test declares its attacks as constants and calls [`Attack::held`] or [`Attack::undefended`] after its assertions.
//! Each call writes one file below `target/hostile`; the program `security_table` renders them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::binaries::{Binaries, target_folder};

/// Who attacks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A program in the agent's sandbox.
    Agent,
    /// The target repository, its tests and its build scripts.
    Repository,
    /// The platform repository.
    Platform,
    /// An MCP server's package.
    McpServer,
    /// What an earlier run left behind.
    EarlierRun,
    /// Another process of the machine, or a client on the network.
    Client,
    /// A model API, git host or proxy that misbehaves.
    Remote,
}

impl Origin {
    fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Repository => "target repository",
            Self::Platform => "platform repository",
            Self::McpServer => "MCP server",
            Self::EarlierRun => "earlier run",
            Self::Client => "client",
            Self::Remote => "remote host",
        }
    }
}

/// The promise that an attack tries to break.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    NoWorkLost,
    NoSecretLeaked,
    AlwaysEnds,
    TruthfulOutcome,
}

impl Promise {
    fn label(self) -> &'static str {
        match self {
            Self::NoWorkLost => "no work lost",
            Self::NoSecretLeaked => "no secret leaked",
            Self::AlwaysEnds => "always ends",
            Self::TruthfulOutcome => "truthful outcome",
        }
    }
}

/// The sandbox that an attack ran in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The attack does not depend on the kind.
    Any,
    Namespaces,
    Landlock,
    /// A container beside the supervisor's; see [`crate::docker_env`].
    Container,
}

impl Kind {
    /// Returns the name, as in `--sandbox-kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Container => "container",
        }
    }

    /// Returns the kinds whose attacks cannot run on this machine.
    #[must_use]
    pub fn untried() -> Vec<Self> {
        let engine = std::env::var_os("ORCHESTRATOR_ENGINE").is_some();
        let tried = |kind: &Self| Self::available().contains(kind) || (*kind == Self::Container && engine);
        [Self::Namespaces, Self::Landlock, Self::Container].into_iter().filter(|kind| !tried(kind)).collect()
    }

    /// Returns the kinds of local sandboxes that this machine can make, strongest first; asks the supervisor once.
    ///
    /// # Panics
    ///
    /// Panics if there is none: the suite would prove nothing.
    pub fn available() -> &'static [Self] {
        static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
        KINDS.get_or_init(|| {
            let works = |kind: &Self| {
                let mut command = Command::new(&Binaries::get().supervisor);
                command.args(["sandbox"]).env("ORCHESTRATOR_SANDBOX_KIND", kind.name());
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.status().expect("the supervisor starts").success()
            };
            let kinds: Vec<_> = [Self::Namespaces, Self::Landlock].into_iter().filter(works).collect();
            assert!(!kinds.is_empty(), "this machine can make no sandbox");
            kinds
        })
    }
}

/// What happened to an attack.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Result {
    Held,
    Undefended,
}

/// One attack; a row of the table for each kind that it ran in.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Unique; lowercase words with hyphens, the first names the suite's file.
    pub id: &'static str,
    pub origin: Origin,
    pub promise: Promise,
    /// What the attacker does, without a full stop.
    pub what: &'static str,
}

/// A row of the table.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub id: String,
    pub kind: Kind,
    pub origin: Origin,
    pub what: String,
    pub promise: Promise,
    pub result: Result,
    /// What happened, or what an operator can do.
    pub happened: String,
}

impl Attack {
    /// Records that the attack failed. `happened` says what the attacker got instead.
    pub fn held(&self, kind: Kind, happened: &str) {
        self.record(kind, Result::Held, happened);
    }

    /// Records that the attack succeeds in this kind. `happened` says what an operator can do.
    pub fn undefended(&self, kind: Kind, happened: &str) {
        self.record(kind, Result::Undefended, happened);
    }

    fn record(&self, kind: Kind, result: Result, happened: &str) {
        let row = Row {
            id: self.id.to_owned(),
            kind,
            origin: self.origin,
            what: self.what.to_owned(),
            promise: self.promise,
            result,
            happened: happened.to_owned(),
        };
        let folder = rows_folder();
        fs::create_dir_all(&folder).expect("a folder for rows");
        let text = serde_json::to_vec_pretty(&row).expect("JSON");
        // Tests run concurrently; a reader never sees half a file.
        let part = tempfile::NamedTempFile::new_in(&folder).expect("a new file");
        fs::write(part.path(), text).expect("a row");
        part.persist(folder.join(format!("{}.{}.json", self.id, kind.name())))
            .expect("a row that is renamed");
    }
}

fn rows_folder() -> PathBuf {
    target_folder().join("hostile")
}

/// Reads the rows that the suite recorded, sorted.
///
/// # Errors
/// Returns an error if a row cannot be read.
pub fn recorded_rows() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(rows_folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            rows.push(serde_json::from_slice::<Row>(&fs::read(&path)?)?);
        }
    }
    rows.sort();
    Ok(rows)
}

/// Renders the rows as a Markdown table.
#[must_use]
pub fn render_rows(rows: &[Row]) -> String {
    let mut text = String::from(
        "| Attack | By | What it does | Promise | Sandbox | Result |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let result = match row.result {
            Result::Held => row.happened.clone(),
            Result::Undefended => format!("**not defended**: {}", row.happened),
        };
        let cells = [
            format!("`{}`", row.id),
            row.origin.label().to_owned(),
            row.what.clone(),
            row.promise.label().to_owned(),
            row.kind.name().to_owned(),
            result,
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// Returns the path of the page with the table.
#[must_use]
pub fn security_page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md")
}
