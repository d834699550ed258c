//! Requests for task documents, completed from the working directory.

use std::path::{Path, PathBuf};

use orchestrator_contract::task::Mode;
use orchestrator_contract::{
    AgentName, Kind, Reason, RepositoryUrl, ServiceName, TaskId, TaskSpec, WorkingDirectory,
};

use super::dispatcher::Dispatcher;
use crate::backend::StoredRun;
use crate::error::Error;
use crate::folder::Checkout;
use crate::task::advice::Advice;
use crate::task::request::{Overrides, Request};
use crate::task::waiting_documents::{EarlierDocs, waiting_documents};

/// Maximum number of tasks to name in an error.
const MAX_LISTED_TASKS: usize = 20;

/// Maximum number of earlier docs runs to read; the pull requests of older ones are likely merged or closed.
const MAX_EARLIER_DOCS_RUNS: usize = 20;

/// A request for task documents.
#[derive(Clone, Debug, Default)]
pub struct DocsRequest {
    /// Task to document (default: all tasks).
    pub task: Option<TaskId>,
    /// Service (default: derived from the directory that holds `.taskmaster`).
    pub service: Option<ServiceName>,
    pub agent: Option<AgentName>,
    /// Directory that holds `.taskmaster`, as given.
    pub working_directory: Option<PathBuf>,
    /// `Retry` resumes an unfinished run.
    pub mode: Mode,
    pub overrides: Overrides,
}

impl Dispatcher {
    /// Builds the request for a docs run; derives a missing service and directory from the checkout.
    ///
    /// # Errors
    /// Returns an error if the service or directory is neither given nor derivable.
    pub async fn docs_request(&self, request: DocsRequest) -> Result<Request, Error> {
        let DocsRequest { task, service, agent, working_directory, mode, mut overrides } = request;
        let checkout = self.platform_checkout(&overrides);
        let named = working_directory.as_deref();
        let found = checkout.as_ref().and_then(|checkout| checkout.tasks(&self.config.folder.path, named));
        let folder = match (&found, &working_directory) {
            (Some(found), _) => Some(found.clone()),
            // It may exist on the branch only; the run reports it if not.
            (None, Some(named)) => Some(in_repository(named)?),
            (None, None) => None,
        };
        if let (Some(task), Some(checkout), Some(found)) = (task, &checkout, &found) {
            check_task(task, checkout, found, &overrides)?;
        }
        let service = match service {
            Some(service) => service,
            None => self.service_of(folder.as_ref(), checkout.as_ref())?,
        };
        overrides.docs_directory = overrides.docs_directory.or(folder);
        let agent = match agent {
            Some(agent) => agent,
            None => self.config.default_agent()?,
        };
        let mut request = Request { kind: Kind::Docs, task, service, agent, mode, overrides };
        if mode == Mode::First && self.has_finished_run(&request).await? {
            // Existing documents are kept, so a fresh start loses nothing.
            request.mode = Mode::Fresh;
        }
        Ok(request)
    }

    async fn has_finished_run(&self, request: &Request) -> Result<bool, Error> {
        let task_key = request.identity();
        for run in self.backend.runs().await?.into_iter().filter(|run| run.task.identity() == task_key) {
            let status = self.status_of(run).await?;
            if status.phase.is_final() && status.last_event_seq > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the checkout of the working directory, if it is one of the platform repository.
    pub(super) fn platform_checkout(&self, overrides: &Overrides) -> Option<Checkout> {
        let named = overrides.platform_repository_url.as_ref().or(self
            .config
            .defaults()
            .platform_repository_url
            .as_ref());
        let open = self.config.folder.remote().url;
        let is_open =
            |named: &RepositoryUrl| open.as_ref().is_some_and(|open| open.is_same_repository(named));
        let is_platform = named.is_none_or(is_open);
        self.config.folder.checkout().filter(|_| is_platform)
    }

    fn service_of(
        &self,
        folder: Option<&WorkingDirectory>,
        checkout: Option<&Checkout>,
    ) -> Result<ServiceName, Error> {
        let name = match folder.map(WorkingDirectory::relative).filter(|relative| !relative.is_empty()) {
            Some(relative) => relative.rsplit('/').next().map(str::to_owned),
            None if checkout.is_some() => {
                self.config.folder.remote().url.map(|remote| remote.name().to_owned())
            }
            None => None,
        };
        let cause = match &name {
            Some(name) => format!(
                "`{name}`, the directory or repository that holds `.taskmaster`, is not a valid service name"
            ),
            None => "the working directory is not a clone of the platform repository".to_owned(),
        };
        name.and_then(|name| ServiceName::new(name.to_ascii_lowercase()).ok()).ok_or_else(|| {
            Error::invalid_request(format!("unknown service: {cause}")).with_hint(Advice::SetService)
        })
    }

    /// Returns warnings about documents that wait in the pull requests of earlier docs runs.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    pub(super) async fn waiting_document_warnings(
        &self,
        request: &Request,
        task: &TaskSpec,
        runs: &[StoredRun],
    ) -> Result<Vec<String>, Error> {
        let is_earlier = |run: &&StoredRun| {
            let other = &run.task;
            // A retry continues on the branch of the run itself.
            let is_continued = request.mode == Mode::Retry && other.identity() == request.identity();
            other.kind == Kind::Docs
                && !is_continued
                && other.platform.url.is_same_repository(&task.platform.url)
                && other.platform.docs_directory == task.platform.docs_directory
        };
        let mut earlier = Vec::new();
        for run in runs.iter().filter(is_earlier).take(MAX_EARLIER_DOCS_RUNS) {
            let status = self.status_of(run.clone()).await?;
            let (Some(url), Some(outcome)) = (status.pull_request, status.outcome) else { continue };
            earlier.extend(EarlierDocs::new(status.run, url, &outcome.docs_results));
        }
        let checkout = self.checkout_of(task, &request.overrides);
        Ok(waiting_documents(request.task, &earlier, |id| {
            let folder = task.platform.docs_directory.as_ref();
            checkout.as_ref().is_some_and(|checkout| checkout.has_documents(folder, id))
        }))
    }

    /// Returns the checkout of the working directory, if it is one of the task's platform repository.
    fn checkout_of(&self, task: &TaskSpec, overrides: &Overrides) -> Option<Checkout> {
        let remote = self.config.folder.remote().url;
        let is_platform = remote.is_some_and(|remote| remote.is_same_repository(&task.platform.url));
        self.platform_checkout(overrides).filter(|_| is_platform)
    }

    /// Returns warnings about local documents that a run of the task does not see.
    pub(super) async fn document_warnings(&self, task: &TaskSpec, overrides: &Overrides) -> Vec<String> {
        let (Some(id), Some(checkout)) = (task.task_id, self.checkout_of(task, overrides)) else {
            return Vec::new();
        };
        let folders = match &task.platform.docs_directory {
            Some(folder) => vec![folder.clone()],
            // The run looks there, too.
            None => [task.service.to_string(), format!("projects/{}", task.service), ".".to_owned()]
                .into_iter()
                .filter_map(|folder| WorkingDirectory::new(folder).ok())
                .collect(),
        };
        checkout.document_warnings(&self.config.environment, id, &folders).await
    }

    /// Returns warnings about local changes that a docs run does not see.
    pub(super) async fn local_change_warnings(&self, task: &TaskSpec, overrides: &Overrides) -> Vec<String> {
        let Some(checkout) = self.checkout_of(task, overrides) else { return Vec::new() };
        match &task.target.base {
            Some(branch) => {
                let folder = task.platform.docs_directory.as_ref();
                checkout.warnings(&self.config.environment, branch, folder).await
            }
            None => vec![
                "no branch is checked out: tasks are read from the default branch of the remote".to_owned(),
            ],
        }
    }
}

/// Checks that the clone has the task, if the run reads the branch that is checked out.
fn check_task(
    task: TaskId,
    checkout: &Checkout,
    folder: &WorkingDirectory,
    overrides: &Overrides,
) -> Result<(), Error> {
    let named = overrides.branch.as_ref().or(overrides.platform_branch.as_ref());
    let open = checkout.branch();
    if open.is_none() || named.is_some_and(|named| Some(named) != open.as_ref()) {
        return Ok(());
    }
    let Some(ids) = checkout.task_ids(folder).filter(|ids| !ids.contains(&task)) else { return Ok(()) };
    let shown: Vec<String> = ids.iter().take(MAX_LISTED_TASKS).map(ToString::to_string).collect();
    let more = if ids.len() > shown.len() { ", ..." } else { "" };
    let place = Path::new(folder.relative()).join(".taskmaster/tasks/tasks.json");
    Err(Error::new(Reason::TaskNotFound, format!("task {task} is not in {} of this clone", place.display()))
        .with_hint(format!(
            "Its tasks are {}{more}. If the task is new on the remote, pull it.",
            shown.join(", ")
        )))
}

/// Parses a directory as a path relative to the repository's root.
fn in_repository(path: &Path) -> Result<WorkingDirectory, Error> {
    let text = path.to_string_lossy();
    WorkingDirectory::new(text.trim_end_matches('/')).map_err(|error| {
        Error::invalid_request(format!("no directory with `.taskmaster` at {text}: {error}"))
            .with_hint("Use the path from the repository's root to the directory that holds `.taskmaster`.")
    })
}
