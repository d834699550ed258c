//! Paths in a workspace.
//!
//! The agent's files and the supervisor's files are separate subtrees, so that a sandbox can grant
//! access to one without the other.

use std::path::{Path, PathBuf};

use crate::containers;
use crate::names::{RunName, ServiceName, TaskId, TaskKey};

/// Paths of a workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    root: PathBuf,
    /// Where the supervisor's files are, if not in the workspace.
    state: Option<PathBuf>,
}

impl Layout {
    /// Creates the layout of the workspace at `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), state: None }
    }

    /// Creates the layout of a workspace in the containers of a run: other containers write `root`,
    /// and only the supervisor writes `state`.
    #[must_use]
    pub fn with_state(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), state: Some(state.into()) }
    }

    /// Returns the layout of a run's containers ([`crate::containers`]).
    #[must_use]
    pub fn of_containers() -> Self {
        Self::with_state(containers::WORKSPACE, containers::STATE_DIR)
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
        self.shared_dir().unwrap_or_else(|| self.root.clone()).join("platform-repo")
    }

    /// Returns the worktree of docs runs.
    #[must_use]
    pub fn docs_repo(&self) -> PathBuf {
        self.root.join("docs-repo")
    }

    /// Returns the directory of fresh directories: one for each conversation, command list and MCP server.
    ///
    /// Only the supervisor creates entries in it; a sandbox can write below its own entry alone.
    #[must_use]
    pub fn agent_dir(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// Returns the directory of exports: one fresh subdirectory for each verification or base setup.
    #[must_use]
    pub fn verify_dir(&self) -> PathBuf {
        self.root.join("verify")
    }

    /// Returns the supervisor's directory; the agent has no access to it.
    #[must_use]
    pub fn supervisor_dir(&self) -> PathBuf {
        match &self.state {
            Some(state) => state.join("private"),
            None => self.root.join(".orchestrator"),
        }
    }

    /// Returns the directory that other containers can read, if the layout is that of containers.
    #[must_use]
    pub fn shared_dir(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join("shared"))
    }

    /// Returns the directory of git objects and caches, which sandboxes can read.
    fn readable_dir(&self) -> PathBuf {
        self.shared_dir().unwrap_or_else(|| self.supervisor_dir())
    }

    /// Returns the directory of what a sandbox wrote and the supervisor moved.
    ///
    /// It is in the volume that the sandbox writes, since nothing is moved across volumes.
    fn moved_dir(&self) -> PathBuf {
        match &self.state {
            Some(_) => self.root.clone(),
            None => self.supervisor_dir(),
        }
    }

    /// Returns the directory of stored sessions, from which a retry resumes.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.supervisor_dir().join("sessions")
    }

    /// Returns the directory of files that MCP servers keep across the tasks of the service.
    ///
    /// It has one subdirectory for each server.
    #[must_use]
    pub fn kept(&self) -> PathBuf {
        self.supervisor_dir().join("kept")
    }

    /// Returns the control repository of the target repository.
    #[must_use]
    pub fn target_control(&self) -> PathBuf {
        self.readable_dir().join("target.git")
    }

    /// Returns the control repository of the platform repository.
    #[must_use]
    pub fn platform_control(&self) -> PathBuf {
        self.supervisor_dir().join("platform.git")
    }

    /// Returns the control repository of docs runs, which write the platform repository.
    #[must_use]
    pub fn docs_control(&self) -> PathBuf {
        self.readable_dir().join("docs.git")
    }

    /// Returns the directory of trusted caches, which only setup commands on the base write.
    #[must_use]
    pub fn trusted_caches(&self) -> PathBuf {
        self.readable_dir().join("caches")
    }

    /// Returns the directory of what a service keeps from one verification to the next.
    #[must_use]
    pub fn verify_kept(&self, service: &ServiceName) -> PathBuf {
        self.moved_dir().join("keep").join(service.as_str())
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

    /// Returns the directory of worktrees that could not be saved completely, named after their runs.
    #[must_use]
    pub fn aside(&self) -> PathBuf {
        self.moved_dir().join("aside")
    }

    /// Returns the directory of records that could not be read.
    #[must_use]
    pub fn damaged_records(&self) -> PathBuf {
        self.supervisor_dir().join("aside")
    }

    /// Returns the directory of fresh directories of MCP servers, which run beside the supervisor.
    #[must_use]
    pub fn tools_dir(&self) -> PathBuf {
        match &self.state {
            Some(_) => self.supervisor_dir().join("tools"),
            None => self.agent_dir(),
        }
    }

    /// Returns the directory of a service's volume that a guest beside the supervisor works in.
    #[must_use]
    pub fn tools_root(&self) -> PathBuf {
        match &self.state {
            Some(_) => self.supervisor_dir(),
            None => self.root.clone(),
        }
    }

    /// Returns the file whose blocks are given back when the disk is full at the end of a run.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.supervisor_dir().join("reserve")
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

    /// Returns the directory of files for MCP servers that the supervisor starts.
    #[must_use]
    pub fn mcp_files(&self) -> PathBuf {
        self.path.join("mcp")
    }

    /// Returns the file of session ids, from which a retry resumes.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.path.join("sessions.json")
    }

    /// Returns the file of the run's usage so far, kept by the model gateway.
    #[must_use]
    pub fn usage(&self) -> PathBuf {
        self.path.join("usage.json")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_write_no_file_of_supervisor() {
        let layout = Layout::of_containers();
        let private = [layout.sessions(), layout.kept(), layout.runs(), layout.lock(), layout.state()];
        assert!(private.iter().all(|path| path.starts_with(containers::PRIVATE_DIR)), "{private:?}");
        let shared = [layout.target_control(), layout.trusted_caches(), layout.platform_repo()];
        assert!(shared.iter().all(|path| path.starts_with(containers::SHARED_DIR)), "{shared:?}");
        let written = [layout.target_repo(), layout.agent_dir(), layout.verify_dir(), layout.aside()];
        assert!(written.iter().all(|path| path.starts_with(containers::WORKSPACE)), "{written:?}");
    }
}
