//! Where things are in a workspace. The agent's part and the supervisor's part
//! are separate subtrees, so that a sandbox can grant one without the other.

use std::path::{Path, PathBuf};

use crate::names::{RunName, ServiceName, TaskId, TaskKey};

/// The paths of a workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the workspace at `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The name of a service's workspace: `workspace-{service}`.
    #[must_use]
    pub fn name(service: &ServiceName) -> String {
        format!("workspace-{service}")
    }

    /// The workspace itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The working tree; the agent works in it.
    #[must_use]
    pub fn target_repo(&self) -> PathBuf {
        self.root.join("target-repo")
    }

    /// The documentation at the commit that the run uses; the agent reads it.
    #[must_use]
    pub fn platform_repo(&self) -> PathBuf {
        self.root.join("platform-repo")
    }

    /// The working tree of docs runs.
    #[must_use]
    pub fn docs_repo(&self) -> PathBuf {
        self.root.join("docs-repo")
    }

    /// The agent's own: homes, memory, caches, temporary files.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// The home of the agent in one run.
    #[must_use]
    pub fn agent_home(&self, run: &RunName) -> PathBuf {
        self.agent_dir().join("home").join(run.as_str())
    }

    /// What the memory server keeps, across the tasks of the service.
    #[must_use]
    pub fn agent_memory(&self) -> PathBuf {
        self.agent_dir().join("memory")
    }

    /// Caches of tools: cargo, npm.
    #[must_use]
    pub fn agent_cache(&self) -> PathBuf {
        self.agent_dir().join("cache")
    }

    /// The agent's temporary files.
    #[must_use]
    pub fn agent_tmp(&self) -> PathBuf {
        self.agent_dir().join("tmp")
    }

    /// The supervisor's own.
    #[must_use]
    pub fn supervisor_dir(&self) -> PathBuf {
        self.root.join(".orchestrator")
    }

    /// The control repository of the target.
    #[must_use]
    pub fn target_control(&self) -> PathBuf {
        self.supervisor_dir().join("target.git")
    }

    /// The control repository of the platform.
    #[must_use]
    pub fn platform_control(&self) -> PathBuf {
        self.supervisor_dir().join("platform.git")
    }

    /// The control repository of docs runs: the platform repository, as it is written.
    #[must_use]
    pub fn docs_control(&self) -> PathBuf {
        self.supervisor_dir().join("docs.git")
    }

    /// The lock that a run holds while it uses the workspace; it contains the holder's name.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.supervisor_dir().join("lock")
    }

    /// The tickets of runs that wait for their turn.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.supervisor_dir().join("queue")
    }

    /// What the working tree holds and whether it was saved.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.supervisor_dir().join("state.json")
    }

    /// The same of the working tree of docs runs.
    #[must_use]
    pub fn docs_state(&self) -> PathBuf {
        self.supervisor_dir().join("docs-state.json")
    }

    /// The highest attempt number of an identity: a decimal number in a file.
    #[must_use]
    pub fn attempts(&self, identity: &TaskKey) -> PathBuf {
        self.supervisor_dir().join("attempts").join(identity.slug())
    }

    /// The records of all runs.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.supervisor_dir().join("runs")
    }

    /// The record of one run.
    #[must_use]
    pub fn run_dir(&self, run: &RunName) -> RunDir {
        RunDir { path: self.runs().join(run.as_str()) }
    }
}

/// The record of one run: everything that is kept of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The record's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// The task as it was asked for.
    #[must_use]
    pub fn task(&self) -> PathBuf {
        self.path.join("task.json")
    }

    /// The prompt as it was given.
    #[must_use]
    pub fn prompt(&self) -> PathBuf {
        self.path.join("prompt.md")
    }

    /// The agent's MCP configuration.
    #[must_use]
    pub fn mcp_config(&self) -> PathBuf {
        self.path.join("mcp.json")
    }

    /// The folder of what is written for MCP servers that are not the agent's children.
    #[must_use]
    pub fn mcp_files(&self) -> PathBuf {
        self.path.join("mcp")
    }

    /// The agent's settings.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.path.join("settings.json")
    }

    /// The conversations' ids, for a resume.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.path.join("sessions.json")
    }

    /// What the agent's program printed, redacted.
    #[must_use]
    pub fn transcript(&self) -> PathBuf {
        self.path.join("transcript.jsonl")
    }

    /// The same of the conversation about one task of a docs run.
    #[must_use]
    pub fn task_transcript(&self, task: TaskId) -> PathBuf {
        self.path.join(format!("transcript-task{task}.jsonl"))
    }

    /// The prompt of the conversation about one task of a docs run.
    #[must_use]
    pub fn task_prompt(&self, task: TaskId) -> PathBuf {
        self.path.join(format!("prompt-task{task}.md"))
    }

    /// The events of the run.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// The outcome.
    #[must_use]
    pub fn outcome(&self) -> PathBuf {
        self.path.join("outcome.json")
    }

    /// What the run's branch changes, as a patch for people: redacted, and cut where it is long.
    #[must_use]
    pub fn diff(&self) -> PathBuf {
        self.path.join("diff.patch")
    }

    /// Work that could not be pushed.
    #[must_use]
    pub fn rescue(&self) -> PathBuf {
        self.path.join("rescue")
    }
}
