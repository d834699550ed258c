//! Paths in a workspace.
//!
//! The agent's files and the supervisor's files are separate subtrees, so that a sandbox can grant
//! access to one without the other.

use std::path::{Path, PathBuf};

use crate::names::{RunName, ServiceName, TaskId, TaskKey};

/// Paths of a workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Creates the layout of the workspace at `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the name of a service's workspace: `workspace-{service}`.
    #[must_use]
    pub fn name(service: &ServiceName) -> String {
        format!("workspace-{service}")
    }

    /// Returns the root directory of the workspace.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the worktree of the target repository, in which the agent works.
    #[must_use]
    pub fn target_repo(&self) -> PathBuf {
        self.root.join("target-repo")
    }

    /// Returns the checkout of the platform repository that the agent reads.
    #[must_use]
    pub fn platform_repo(&self) -> PathBuf {
        self.root.join("platform-repo")
    }

    /// Returns the worktree of docs runs.
    #[must_use]
    pub fn docs_repo(&self) -> PathBuf {
        self.root.join("docs-repo")
    }

    /// Returns the agent's directory: homes, memory, caches, temporary files.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// Returns the agent's home directory in one run.
    #[must_use]
    pub fn agent_home(&self, run: &RunName) -> PathBuf {
        self.agent_dir().join("home").join(run.as_str())
    }

    /// Returns the memory server's directory, shared by all tasks of the service.
    #[must_use]
    pub fn agent_memory(&self) -> PathBuf {
        self.agent_dir().join("memory")
    }

    /// Returns the directory of tool caches, such as cargo and npm.
    #[must_use]
    pub fn agent_cache(&self) -> PathBuf {
        self.agent_dir().join("cache")
    }

    /// Returns the agent's directory for temporary files.
    #[must_use]
    pub fn agent_tmp(&self) -> PathBuf {
        self.agent_dir().join("tmp")
    }

    /// Returns the directory of exports: one fresh subdirectory for each verification or base setup.
    #[must_use]
    pub fn verify_dir(&self) -> PathBuf {
        self.root.join("verify")
    }

    /// Returns the supervisor's directory; the agent has no access to it.
    #[must_use]
    pub fn supervisor_dir(&self) -> PathBuf {
        self.root.join(".orchestrator")
    }

    /// Returns the control repository of the target repository.
    #[must_use]
    pub fn target_control(&self) -> PathBuf {
        self.supervisor_dir().join("target.git")
    }

    /// Returns the control repository of the platform repository.
    #[must_use]
    pub fn platform_control(&self) -> PathBuf {
        self.supervisor_dir().join("platform.git")
    }

    /// Returns the control repository of docs runs, which write the platform repository.
    #[must_use]
    pub fn docs_control(&self) -> PathBuf {
        self.supervisor_dir().join("docs.git")
    }

    /// Returns the directory of trusted caches, which only setup commands on the base write.
    #[must_use]
    pub fn trusted_caches(&self) -> PathBuf {
        self.supervisor_dir().join("caches")
    }

    /// Returns the directory of what a service keeps from one verification to the next.
    #[must_use]
    pub fn verify_kept(&self, service: &ServiceName) -> PathBuf {
        self.supervisor_dir().join("keep").join(service.as_str())
    }

    /// Returns the lock file; the run that uses the workspace locks it and writes its name into it.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.supervisor_dir().join("lock")
    }

    /// Returns the directory of tickets: one file per run that waits for the lock.
    #[must_use]
    pub fn queue(&self) -> PathBuf {
        self.supervisor_dir().join("queue")
    }

    /// Returns the file that records the worktree's run and whether its work was saved.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.supervisor_dir().join("state.json")
    }

    /// Returns the same file for the worktree of docs runs.
    #[must_use]
    pub fn docs_state(&self) -> PathBuf {
        self.supervisor_dir().join("docs-state.json")
    }

    /// Returns the file with the highest attempt number of a task key, in decimal.
    #[must_use]
    pub fn attempts(&self, key: &TaskKey) -> PathBuf {
        self.supervisor_dir().join("attempts").join(key.slug())
    }

    /// Returns the directory that contains the directories of all runs.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.supervisor_dir().join("runs")
    }

    /// Returns the paths of one run's files.
    #[must_use]
    pub fn run_dir(&self, run: &RunName) -> RunDir {
        RunDir { path: self.runs().join(run.as_str()) }
    }
}

/// Directory with the files of one run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Returns the directory itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// Returns the file of the task spec.
    #[must_use]
    pub fn task(&self) -> PathBuf {
        self.path.join("task.json")
    }

    /// Returns the file of the prompt sent to the agent.
    #[must_use]
    pub fn prompt(&self) -> PathBuf {
        self.path.join("prompt.md")
    }

    /// Returns the agent's MCP configuration file.
    #[must_use]
    pub fn mcp_config(&self) -> PathBuf {
        self.path.join("mcp.json")
    }

    /// Returns the directory of files for MCP servers that the supervisor starts.
    #[must_use]
    pub fn mcp_files(&self) -> PathBuf {
        self.path.join("mcp")
    }

    /// Returns the agent's settings file.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.path.join("settings.json")
    }

    /// Returns the file of session ids, from which a retry resumes.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.path.join("sessions.json")
    }

    /// Returns the transcript: the redacted output of the Claude Code CLI.
    #[must_use]
    pub fn transcript(&self) -> PathBuf {
        self.path.join("transcript.jsonl")
    }

    /// Returns the transcript of one task's session in a docs run.
    #[must_use]
    pub fn task_transcript(&self, task: TaskId) -> PathBuf {
        self.path.join(format!("transcript-task{task}.jsonl"))
    }

    /// Returns the prompt of one task's session in a docs run.
    #[must_use]
    pub fn task_prompt(&self, task: TaskId) -> PathBuf {
        self.path.join(format!("prompt-task{task}.md"))
    }

    /// Returns the event log of the run.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// Returns the outcome file.
    #[must_use]
    pub fn outcome(&self) -> PathBuf {
        self.path.join("outcome.json")
    }

    /// Returns the diff of the branch: redacted and truncated, for reading only.
    #[must_use]
    pub fn diff(&self) -> PathBuf {
        self.path.join("diff.patch")
    }

    /// Returns the directory of work that could not be pushed.
    #[must_use]
    pub fn rescue(&self) -> PathBuf {
        self.path.join("rescue")
    }
}
