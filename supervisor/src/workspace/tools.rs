//! Steps `documents` and `mcp`: task documents and MCP servers for the agent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::outcome::{McpStatus, Outcome, Revision};
use orchestrator_contract::task::Mode;
use orchestrator_contract::{Kind, Reason, RunName};

use super::branch::PreparedBranch;
use super::documents::{self, DocumentQuery, Reader, TaskDocuments, TooLarge};
use super::fetch::{blocking, open};
use super::preflight::catalogue;
use super::setup::run_setup;
use crate::agent::prepare_session::{AgentTools, Conversations};
use crate::context::{Context, RepositoryRole};
use crate::docs;
use crate::docs::plan::{Document, Plan};
use crate::docs::usage::PreviousDocs;
use crate::failure::Failure;
use crate::git::{ControlRepository, EntryKind, GitError, Oid, PathNode};
use crate::guest::Guest;
use crate::homes::sessions::SessionStore;
use crate::homes::{Home, kept, remove_all};
use crate::mcp::catalog::{Catalog, ServerConfig, WorkspaceAccess};
use crate::mcp::compose::{self, Location, Placeholders, ServerPlan, compose};
use crate::mcp::installed::{find_command, has_toolchain, is_toolchain};
use crate::mcp::probe::{self, probe};
use crate::mcp::relay::{AgentPlace, RelayHost, ServerEnv};
use crate::mcp::sandbox::{ToolSandbox, trusted_search_path};
use crate::sandbox::{Kind as SandboxKind, Places, Role, machine};
use crate::site::{Site, THIS_PROGRAM};

/// How long the removal of earlier runs' directories may delay the run.
const HOME_REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum toolchains of a container to look at.
const MAX_TOOLCHAINS: usize = 100;

/// Finds the task's documents at the fetched commit.
///
/// # Errors
/// Returns an error if there are no documents, or they are malformed.
pub async fn find_documents(context: &Context, platform: &Revision) -> Result<TaskDocuments, Failure> {
    let (context, oid) = (context.clone(), platform.oid.clone());
    blocking(move || {
        let task =
            context.task.task_id.ok_or_else(|| Failure::new(Reason::InvalidTask, "missing task id"))?;
        let commit =
            Oid::from_str(&oid).map_err(|error| Failure::from_error(Reason::InternalError, &error))?;
        let control = open(&context, RepositoryRole::Platform)?;
        let read = |path: &str| read_at(&control, commit, path);
        let list = |path: &str| list_at(&control, commit, path);
        let docs_directory = context.task.platform.docs_directory.as_ref().map(|folder| folder.relative());
        let query = DocumentQuery { service: &context.task.service, task, docs_directory };
        documents::find_documents(&Reader { read, list }, &query)
            .map_err(|error| Failure::from_error(error.reason(), &error))
    })
    .await
}

/// Plans which documents a docs run writes, at its start commit.
///
/// # Errors
/// Returns an error if there are no tasks, or they are malformed.
pub async fn plan_documents(
    context: &Context,
    prepared: &PreparedBranch,
) -> Result<(Plan, PreviousDocs), Failure> {
    let (context, prepared) = (context.clone(), prepared.clone());
    blocking(move || {
        let control = open(&context, RepositoryRole::Target)?;
        let read = |path: &str| read_at(&control, prepared.start, path);
        let list = |path: &str| list_at(&control, prepared.start, path);
        let task = &context.task;
        let written_before = |folder: &str| {
            for document in Document::ALL {
                let path = format!("{folder}/{}", document.file());
                let now = read_at(&control, prepared.start, &path)?;
                if now.is_none() || now == read_at(&control, prepared.base, &path)? {
                    return Ok(false);
                }
            }
            Ok(task.mode == Mode::Retry)
        };
        let input = docs::plan::PlanInput {
            service: &task.service,
            task: task.task_id,
            docs_directory: task.platform.docs_directory.as_ref().map(|folder| folder.relative()),
            force: task.docs_options().force,
            written_before: &written_before,
        };
        let plan = docs::plan::plan(&Reader { read, list }, &input)
            .map_err(|error| Failure::from_error(error.reason(), &error))?;
        Ok((plan, previous_docs(&context, &prepared)))
    })
    .await
}

/// Returns the results of the previous attempt, used only in reports.
fn previous_docs(context: &Context, prepared: &PreparedBranch) -> PreviousDocs {
    let last = prepared.last.as_ref().filter(|_| context.task.mode == Mode::Retry);
    let Some(run) = last.and_then(|last| RunName::new(last.run.clone()).ok()) else {
        return PreviousDocs::default();
    };
    let outcome = crate::record::file::read_json::<Outcome>(&context.layout.run_dir(&run).outcome());
    let results = outcome.ok().flatten().map(|outcome| outcome.docs_results).unwrap_or_default();
    PreviousDocs { run: Some(run), results }
}

/// Returns the content of a file, unless it is too large to be a document.
fn read_at(control: &ControlRepository, commit: Oid, path: &str) -> std::io::Result<Option<Vec<u8>>> {
    let node = control.read_node(commit, path.as_ref(), documents::MAX_FILE_BYTES);
    let node = node.map_err(|error: GitError| std::io::Error::other(error.to_string()))?;
    let is_file = |node: &PathNode| matches!(node.kind, EntryKind::File | EntryKind::Executable);
    match node.filter(is_file) {
        None => Ok(None),
        Some(PathNode { content: Some(content), .. }) => Ok(Some(content)),
        Some(PathNode { content: None, size, .. }) => Err(TooLarge { size }.into()),
    }
}

/// Lists the names in a directory, without links and submodules.
fn list_at(control: &ControlRepository, commit: Oid, path: &str) -> std::io::Result<Vec<String>> {
    let io_error = |error: GitError| std::io::Error::other(error.to_string());
    let entries = control.list_tree(commit, path.as_ref()).map_err(io_error)?.unwrap_or_default();
    let name = |entry: crate::git::Entry| {
        let is_listed = matches!(entry.kind, EntryKind::Folder | EntryKind::File | EntryKind::Executable);
        String::from_utf8(entry.name).ok().filter(|_| is_listed)
    };
    Ok(entries.into_iter().filter_map(name).collect())
}

/// Probes each MCP server, writes the agent's MCP configuration and runs the setup commands.
///
/// # Errors
/// Returns an error if a required server or a setup command fails.
pub async fn start_mcp_servers_and_setup(
    context: &Context,
    prepared: &PreparedBranch,
) -> Result<AgentTools, Failure> {
    clear_homes(context).await?;
    let catalogue = catalogue(context)?;
    let directory = context.working_directory(&prepared.working_directory.path);
    let placeholders = Placeholders {
        workspace: context.worktree(),
        target: directory.clone(),
        files: context.record.mcp_files(),
    };
    let composing = (context.clone(), catalogue.clone());
    let mut composed = blocking(move || compose_servers(&composing.0, &composing.1, &placeholders)).await?;
    for (path, text) in composed.servers.iter().flat_map(|server| &server.files) {
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        written.and_then(|()| std::fs::write(path, text)).map_err(|error| Failure::io(path, &error))?;
    }
    let server_env = server_env(context);
    for server in composed.relayed() {
        server_env.restore_kept(server).await?;
    }
    let servers = probe(&mut composed, &server_env, &context.redactor, probe::PROBE_TIMEOUT)
        .await
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    for server in &servers {
        let note = server.note.as_deref().unwrap_or_default();
        let line = match server.status {
            McpStatus::Connected => format!("{}: {} tools", server.name, server.tools),
            McpStatus::Skipped => format!("{} skipped: {note}", server.name),
            McpStatus::Failed => format!("{} failed: {note}", server.name),
        };
        context.journal.log(orchestrator_contract::Level::Info, "mcp", line);
    }
    let relay = RelayHost::start(&composed, &server_env)
        .map_err(|error| Failure::from_error(error.reason(), &error))?;
    run_setup(context, prepared, &directory).await?;
    let described = composed
        .servers
        .iter()
        .filter_map(|server| Some((server.name.clone(), catalogue.get(&server.name)?.description.clone())))
        .collect();
    Ok(AgentTools {
        servers,
        described,
        relay,
        tool_timeout_ms: composed.tool_timeout().map(|limit| limit.as_millis()),
        plan: composed,
        conversations: Conversations::default(),
    })
}

/// Stores the sessions and kept files of killed runs, then removes every directory of an earlier run.
async fn clear_homes(context: &Context) -> Result<(), Failure> {
    let context = context.clone();
    let clearing = blocking(move || {
        let (layout, journal) = (&context.layout, &context.journal);
        let guest = context.agent_site.open(layout.root())?;
        let tools = context.tool_site.open(&layout.tools_root())?;
        let mut problems = SessionStore::new(layout).collect_leftovers(&guest);
        problems.extend(kept::collect_leftovers(&layout.kept(), &layout.tools_dir(), &tools));
        for problem in problems {
            journal.warn(problem);
        }
        for (guest, folder) in [(guest, layout.agent_dir()), (tools, layout.tools_dir())] {
            let removed = remove_all(&guest, &folder);
            if !removed.map_err(|error| Failure::from_error(Reason::InternalError, &error))? {
                journal
                    .warn(format!("cannot remove every directory of earlier runs in `{}`", folder.display()));
            }
        }
        Ok(())
    });
    tokio::time::timeout(HOME_REMOVAL_TIMEOUT, clearing).await.unwrap_or(Ok(()))
}

/// Returns the environment of the MCP servers: each one runs in its own sandbox.
fn server_env(context: &Context) -> ServerEnv {
    let path = trusted_search_path(&context.inherited.path(), &context.layout.tools_root());
    let mut variables = context.inherited.passthrough();
    variables.insert("PATH".into(), path.clone());
    variables.extend(context.inherited.rustup_home().map(|home| ("RUSTUP_HOME".into(), home.into())));
    let places = Places { path, ..context.sandbox_places() };
    let (secrets, files) = (context.secrets.clone(), context.secrets.clone());
    ServerEnv {
        machine: variables,
        sandbox: ToolSandbox {
            supervisor: THIS_PROGRAM.into(),
            shared: machine(Role::Tool, context.sandbox.kind, &places),
            workspace: context.worktree(),
        },
        site: context.tool_site.clone(),
        agent: match &context.agent_site {
            Site::Machine { .. } => None,
            site @ Site::Container(_) => {
                Some(AgentPlace { site: site.clone(), variables: context.surroundings(site).variables })
            }
        },
        listen: context.agent_site.listen_place(),
        kept: context.layout.kept(),
        secrets: Arc::new(move |name: &str| secrets.read(name).ok().flatten()),
        secret_files: Arc::new(move |name: &str| files.files(name)),
    }
}

/// Returns why a server cannot run beside the containers of a run.
fn refuse_beside_container(context: &Context, server: &ServerConfig) -> Option<String> {
    match (&context.agent_site, server.workspace, context.sandbox.kind) {
        (Site::Machine { .. }, ..) => None,
        (Site::Container(_), WorkspaceAccess::Read | WorkspaceAccess::Write, _) => {
            Some("its `workspace` is in the agent's container, which it cannot reach".to_owned())
        }
        (Site::Container(_), WorkspaceAccess::None, SandboxKind::Off) => {
            Some("the supervisor's container cannot make a sandbox for it".to_owned())
        }
        (Site::Container(_), WorkspaceAccess::None, SandboxKind::Namespaces | SandboxKind::Landlock) => None,
    }
}

/// Returns the names of the rustup toolchains in the agent's container.
fn container_toolchains(context: &Context) -> Vec<String> {
    let Site::Container(_) = &context.agent_site else { return Vec::new() };
    let Some(home) = context.surroundings(&context.agent_site).rustup_home else { return Vec::new() };
    let Ok(guest) = context.agent_site.open(&home.join("toolchains")) else { return Vec::new() };
    let listing = guest.list_one(b"", MAX_TOOLCHAINS);
    let entries = listing.map(|listing| listing.entries).unwrap_or_default();
    entries.into_iter().filter_map(|(name, _)| String::from_utf8(name).ok()).collect()
}

/// Chooses the MCP servers and composes their configuration.
fn compose_servers(
    context: &Context,
    catalogue: &Catalog,
    placeholders: &Placeholders,
) -> Result<ServerPlan, Failure> {
    let path = trusted_search_path(&context.inherited.path(), &context.layout.tools_root());
    let rustup_home = context.inherited.rustup_home();
    let guest = context.tool_site.open(&context.layout.tools_root())?;
    let create_home = |guest: &Guest, folder: &Path| {
        let home = Home::new(folder);
        home.create(guest).map(|()| home)
    };
    let own = Location {
        refuse: &|server| refuse_beside_container(context, server),
        create_home: &|| create_home(&guest, &context.layout.tools_dir()),
        find_command: &|command| find_command(command, &path),
        has_toolchain: &|name| rustup_home.as_deref().is_some_and(|home| has_toolchain(home, name)),
    };
    let container = match &context.agent_site {
        Site::Machine { .. } => None,
        Site::Container(site) => Some((site, context.agent_site.open(context.layout.root())?)),
    };
    let toolchains = container_toolchains(context);
    let find_in_container = |command: &str| {
        let (site, _) = container.as_ref()?;
        // Without an answer the server is skipped like one that is not installed.
        site.find_program(command).ok().flatten()
    };
    let create_in_container = || match &container {
        Some((_, guest)) => create_home(guest, &context.layout.agent_dir()),
        None => create_home(&guest, &context.layout.tools_dir()),
    };
    let agent = match &container {
        None => own,
        Some(_) => Location {
            refuse: &|_| None,
            create_home: &create_in_container,
            find_command: &find_in_container,
            has_toolchain: &|name| toolchains.iter().any(|toolchain| is_toolchain(toolchain, name)),
        },
    };
    let has_secret = |name: &str| context.secrets.read(name).is_ok_and(|secret| secret.is_some());
    let host = compose::HostCapabilities { places: placeholders, has_secret: &has_secret, own, agent };
    // Concurrent sessions of a docs run share the servers, so exclusive ones are not a default.
    let shareable = || {
        let servers = catalogue.servers().filter(|server| server.is_default(has_secret) && !server.exclusive);
        servers.map(|server| server.name.clone()).collect()
    };
    let chosen = match context.task.kind {
        Kind::Implementation => context.task.mcp_servers.clone(),
        Kind::Docs => context.task.mcp_servers.clone().or_else(|| Some(shareable())),
    };
    compose(catalogue, chosen.as_deref(), &host).map_err(|error| Failure::from_error(error.reason(), &error))
}
