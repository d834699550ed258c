//! What has to exist before a session of the agent CLI starts, and what is kept when it has ended.

use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::failure::{Failure, error_chain};
use crate::guest::answers::is_no_folder;
use crate::guest::{Guest, GuestError, WriteKind};
use crate::homes::Home;
use crate::homes::sessions::SessionStore;
use crate::site::Site;
use crate::workspace::caches;
use crate::workspace::fetch::blocking;
use orchestrator_contract::Reason;

/// Preparation of a session: its home, the stored session, the files that the CLI reads.
#[derive(Clone, Debug)]
pub struct SessionSetup {
    site: Site,
    /// Directory of the guest that does the work.
    root: PathBuf,
    trusted_caches: PathBuf,
    sessions: SessionStore,
    session_id: String,
    home: Home,
    start: HomeStart,
    /// Working directory of the session.
    directory: PathBuf,
    /// Directory of the worktree to create, with the path that messages name.
    folder: Option<(PathBuf, String)>,
    files: ConversationFiles,
}

/// State of a session's home before the session starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HomeStart {
    /// The session used it before, in this run.
    Used,
    Fresh,
    /// Fresh, with the stored session of an earlier run.
    Restored,
}

/// Directory with the files that one start of the CLI reads.
#[derive(Clone, Debug)]
pub struct ConversationFiles {
    folder: PathBuf,
    mcp_config: String,
    settings: String,
    system_prompt: String,
}

impl ConversationFiles {
    /// Chooses a new directory in a home.
    #[must_use]
    pub fn new(home: &Home, mcp_config: String, settings: String, system_prompt: String) -> Self {
        // An agent that ran in this home cannot have prepared a directory of this name.
        let name = format!("start-{}", uuid::Uuid::new_v4().simple());
        Self { folder: home.folder().join(name), mcp_config, settings, system_prompt }
    }

    /// Returns the MCP configuration; it contains the conversation's relay tokens.
    #[must_use]
    pub fn mcp_config(&self) -> PathBuf {
        self.folder.join("mcp.json")
    }

    /// Returns the settings of the Claude Code CLI.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.folder.join("settings.json")
    }

    /// Returns the file of the system prompt.
    #[must_use]
    pub fn system_prompt(&self) -> PathBuf {
        self.folder.join("system.md")
    }

    fn write(&self, guest: &Guest) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::io(&self.folder, &error);
        let folder = guest.relative(&self.folder).unwrap_or_default();
        guest.create_folders(&[folder]).map_err(|error| broken(&error))?.map_err(failed)?;
        for (path, text) in [
            (self.mcp_config(), &self.mcp_config),
            (self.settings(), &self.settings),
            (self.system_prompt(), &self.system_prompt),
        ] {
            let written = guest.write_one(&path, WriteKind::File, text.as_bytes());
            written.map_err(|error| broken(&error))?.map_err(failed)?;
        }
        Ok(())
    }
}

/// What differs between the preparations of a run's sessions.
#[derive(Debug)]
pub struct SetupParams<'a> {
    pub session_id: &'a str,
    pub home: Home,
    pub start: HomeStart,
    pub directory: PathBuf,
    /// Directory of the worktree to create.
    pub folder: Option<&'a str>,
    pub files: ConversationFiles,
}

impl SessionSetup {
    /// Describes the preparation of a session; nothing is changed yet.
    #[must_use]
    pub fn new(context: &Context, params: SetupParams<'_>) -> Self {
        let SetupParams { session_id, home, start, directory, folder, files } = params;
        Self {
            site: context.agent_site.clone(),
            root: context.layout.root().to_owned(),
            trusted_caches: context.layout.trusted_caches(),
            sessions: SessionStore::new(&context.layout),
            session_id: session_id.to_owned(),
            home,
            start,
            directory,
            folder: folder.map(|folder| (context.worktree().join(folder), folder.to_owned())),
            files,
        }
    }

    /// Returns where the session runs.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Creates the home and the files of the session.
    ///
    /// # Errors
    /// Returns an error if a file or directory cannot be written.
    pub async fn prepare(&self) -> Result<(), Failure> {
        let setup = self.clone();
        blocking(move || setup.prepare_blocking()).await?;
        if self.start != HomeStart::Used {
            caches::seed_home(&self.site, &self.trusted_caches, &self.home).await;
        }
        Ok(())
    }

    fn prepare_blocking(&self) -> Result<(), Failure> {
        let guest = self.site.open(&self.root)?;
        if self.start != HomeStart::Used {
            self.home
                .create(&guest)
                .map_err(|error| Failure::new(Reason::IoError, cannot_use(self.home.folder(), &error)))?;
            let store = &self.sessions;
            if self.start == HomeStart::Restored {
                store
                    .restore(&self.session_id, &self.home, &self.directory, &guest)
                    .map_err(|error| Failure::new(Reason::IoError, cannot_use(self.home.folder(), &error)))?;
            }
            store
                .record(&self.session_id, &self.home)
                .map_err(|error| Failure::io(self.home.folder(), &error))?;
        }
        if let Some((folder, name)) = &self.folder {
            create_in_worktree(&guest, folder, name)?;
        }
        self.files.write(&guest)
    }

    /// Stores the ended session; returns why it cannot be stored.
    pub async fn store_session(self) -> Option<String> {
        let storing = blocking(move || {
            let guest = self.site.open(&self.root)?;
            let stored = self.sessions.collect(&self.session_id, &guest);
            stored.map_err(|error| Failure::new(Reason::IoError, error_chain(&error)))
        });
        storing.await.err().map(|failure| failure.message)
    }
}

fn broken(error: &GuestError) -> Failure {
    Failure::from_error(error.reason(), error)
}

fn cannot_use(path: &Path, error: &dyn std::error::Error) -> String {
    format!("cannot use `{}`: {}", path.display(), error_chain(error))
}

/// Creates the directory that the agent of a docs task writes to.
fn create_in_worktree(guest: &Guest, folder: &Path, name: &str) -> Result<(), Failure> {
    let relative = guest.relative(folder).unwrap_or_default();
    match guest.ensure_folder(relative).map_err(|error| broken(&error))? {
        // A link may lead out of the worktree.
        Err(error) if is_no_folder(&error) => {
            let message = format!("cannot create `{name}`: a part of it is a file or a symlink");
            Err(Failure::new(Reason::InvalidTask, message))
        }
        created => created.map_err(|error| Failure::io(folder, &error)),
    }
}
