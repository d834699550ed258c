//! Conversion between a TaskRun and the task spec of its supervisor.

use orchestrator_contract::names::Transport;
use orchestrator_contract::task::{self, FieldError};
use orchestrator_contract::{RunName, TaskSpec};

use super::definition::{DocsOptions, Limits, Platform, Target, TaskRun, TaskRunSpec};
use crate::task::image::ImageReference;

impl From<task::Limits> for Limits {
    fn from(limits: task::Limits) -> Self {
        let task::Limits {
            timeout_minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes,
            verify_minutes,
            wait_for_quota_minutes,
        } = limits;
        Self {
            timeout_minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes,
            verify_minutes,
            wait_for_quota_minutes,
        }
    }
}

impl From<Limits> for task::Limits {
    fn from(limits: Limits) -> Self {
        let Limits {
            timeout_minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes,
            verify_minutes,
            wait_for_quota_minutes,
        } = limits;
        Self {
            timeout_minutes,
            idle_minutes,
            turns,
            cost_usd,
            queue_minutes,
            verify_minutes,
            wait_for_quota_minutes,
        }
    }
}

impl TaskRunSpec {
    /// Builds the specification of the run of a task spec.
    #[must_use]
    pub fn from_task(
        task: &TaskSpec,
        image: Option<ImageReference>,
        request: Option<serde_json::Value>,
    ) -> Self {
        let TaskSpec {
            version: _,
            run: _,
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs,
            guidance,
            target: task::Target { url, base, working_directory, depth },
            platform: task::Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits,
            setup,
            verify,
            verify_keep,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
            protected_paths_allow,
        } = task.clone();
        Self {
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs: docs.map(|task::DocsOptions { force, concurrency }| DocsOptions { force, concurrency }),
            guidance,
            target: Target { url, base, working_directory, depth },
            platform: Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits: limits.into(),
            setup,
            verify,
            verify_keep,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
            protected_paths_allow,
            image,
            request,
            stop: None,
        }
    }
}

impl TaskRun {
    /// Returns the task spec for the supervisor.
    ///
    /// # Errors
    /// Returns every invalid field that the schema of the CRD cannot detect.
    pub fn task(&self) -> Result<TaskSpec, Vec<FieldError>> {
        let TaskRunSpec {
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs,
            guidance,
            target: Target { url, base, working_directory, depth },
            platform: Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits,
            setup,
            verify,
            verify_keep,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
            protected_paths_allow,
            image: _,
            request: _,
            stop: _,
        } = self.spec.clone();
        let name = self.metadata.name.clone().unwrap_or_default();
        let run = RunName::new(name).map_err(|error| {
            vec![FieldError { field: "metadata.name".to_owned(), message: error.to_string() }]
        })?;
        let task = TaskSpec {
            version: orchestrator_contract::VERSION,
            run,
            kind,
            service,
            agent,
            task_id,
            attempt,
            mode,
            model,
            docs: docs.map(|DocsOptions { force, concurrency }| task::DocsOptions { force, concurrency }),
            guidance,
            target: task::Target { url, base, working_directory, depth },
            platform: task::Platform { url: platform_url, branch, docs_directory },
            github_user,
            commit_identity,
            limits: limits.into(),
            setup,
            verify,
            verify_keep,
            mcp_servers,
            pull_request,
            clean,
            protected_paths,
            protected_paths_allow,
        };
        let mut errors = task.validate();
        for (field, url) in [("target.url", &task.target.url), ("platform.url", &task.platform.url)] {
            if url.transport() == Transport::Local {
                let message = "a local path, which no pod can reach; use an https or ssh URL".to_owned();
                errors.push(FieldError { field: field.to_owned(), message });
            }
        }
        if errors.is_empty() { Ok(task) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests;
