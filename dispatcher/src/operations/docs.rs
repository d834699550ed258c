//! Documents of tasks: what is to be asked for, told from the open folder.

use std::path::PathBuf;

use orchestrator_contract::task::Mode;
use orchestrator_contract::{AgentName, Kind, ServiceName, TaskId, TaskSpec, WorkingDirectory};

use super::Dispatcher;
use crate::error::Error;
use crate::folder::Checkout;
use crate::task::request::{Overrides, Request};

/// Documents that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct DocsRequest {
    /// Of this task; none: of all.
    pub task: Option<TaskId>,
    /// The service: none for the folder that holds `.taskmaster`.
    pub service: Option<ServiceName>,
    /// Who writes.
    pub agent: Option<AgentName>,
    /// The folder that holds `.taskmaster`, as it was said.
    pub working_directory: Option<PathBuf>,
    /// Whether a run that ended early is gone on with.
    pub mode: Mode,
    /// What was said beyond that.
    pub wishes: Overrides,
}

impl Dispatcher {
    /// The request for documents: service and folder are looked for in the open folder where they
    /// were not said.
    ///
    /// # Errors
    /// Something was not said and cannot be told.
    pub async fn docs_request(&self, wish: DocsRequest) -> Result<Request, Error> {
        let DocsRequest { task, service, agent, working_directory, mode, mut wishes } = wish;
        let checkout = self.platform_checkout(&wishes);
        let named = working_directory.as_deref();
        let found = checkout.as_ref().and_then(|checkout| checkout.tasks(&self.config.folder.path, named));
        let folder = match (&found, &working_directory) {
            (Some(found), _) => Some(found.clone()),
            // Perhaps it is on the branch and not here; whoever clones it will say.
            (None, Some(named)) => Some(in_repository(named)?),
            (None, None) => None,
        };
        let service = match service {
            Some(service) => service,
            None => self.service_of(folder.as_ref(), checkout.as_ref())?,
        };
        wishes.docs_directory = wishes.docs_directory.or(folder);
        let agent = match agent {
            Some(agent) => agent,
            None => self.config.default_agent()?,
        };
        let mut request = Request { kind: Kind::Docs, task, service, agent, mode, overrides: wishes };
        if mode == Mode::First && self.has_ended(&request).await? {
            // Documents that are there are left alone anyway, so starting over loses nothing.
            request.mode = Mode::Fresh;
        }
        Ok(request)
    }

    async fn has_ended(&self, request: &Request) -> Result<bool, Error> {
        let identity = request.identity();
        for run in self.backend.runs().await?.into_iter().filter(|run| run.task.identity() == identity) {
            let status = self.status_of(run).await?;
            if status.phase.is_final() && status.last_event_seq > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The open clone, if it is one of the repository whose documents are meant.
    pub(super) fn platform_checkout(&self, wishes: &Overrides) -> Option<Checkout> {
        let named = wishes.platform_repository_url.as_ref().or(self
            .config
            .defaults()
            .platform_repository_url
            .as_ref());
        let open = self.config.folder.remote().url;
        let is_meant = named.is_none_or(|named| Some(named) == open.as_ref());
        self.config.folder.checkout().filter(|_| is_meant)
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
        let looked = match &name {
            Some(name) => {
                format!("`{name}`, the folder or repository that holds `.taskmaster`, is no name of one")
            }
            None => "there is no open clone of the platform repository to tell it from".to_owned(),
        };
        name.and_then(|name| ServiceName::new(name.to_ascii_lowercase()).ok()).ok_or_else(|| {
            Error::invalid_request(format!("cannot tell whose documents are wanted, the service: {looked}"))
                .with_hint("Give it with --service.")
        })
    }

    /// What somebody should know whose documents are written: what of the open folder the run does
    /// not see.
    pub(super) async fn local_change_warnings(&self, task: &TaskSpec, wishes: &Overrides) -> Vec<String> {
        let remote = self.config.folder.remote().url;
        let checkout = self.platform_checkout(wishes).filter(|_| remote.as_ref() == Some(&task.platform.url));
        let Some(checkout) = checkout else { return Vec::new() };
        match &task.target.base {
            Some(branch) => {
                let folder = task.platform.docs_directory.as_ref();
                checkout.warnings(&self.config.environment, branch, folder).await
            }
            None => vec![
                "the open folder is on no branch: tasks are read from the default branch of the remote"
                    .to_owned(),
            ],
        }
    }
}

/// A folder as it was named, taken as one of the repository.
fn in_repository(named: &std::path::Path) -> Result<WorkingDirectory, Error> {
    let text = named.to_string_lossy();
    WorkingDirectory::new(text.trim_end_matches('/')).map_err(|error| {
        Error::invalid_request(format!("there is no folder with `.taskmaster` at {text}: {error}"))
            .with_hint("Name the folder that holds `.taskmaster`, from the repository's root.")
    })
}
