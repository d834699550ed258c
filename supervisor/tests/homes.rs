//! Fresh directories, and what outlives them: sessions, files of MCP servers, worktrees moved aside,
//! kept build folders. A guest does all of it, as a plain child here.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use orchestrator_contract::WorkingDirectory;
use orchestrator_contract::layout::Layout;
use supervisor::guest::{Guest, GuestOptions};
use supervisor::homes::sessions::{SESSION_MAX_BYTES, SessionStore, config_directory};
use supervisor::homes::{Home, ReadError, kept, read_file, remove_all};
use supervisor::workspace::aside::{has_content, move_aside};
use supervisor::workspace::keep;

const SESSION: &str = "6f0d5b7c-0000-4000-8000-000000000000";

const MAX: u64 = 1024;

/// Workspace with a guest in it.
struct Workspace {
    folder: tempfile::TempDir,
    layout: Layout,
    guest: Guest,
}

impl Workspace {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        fs::create_dir_all(layout.sessions()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_supervisor"));
        let guest = Guest::start(program, folder.path(), GuestOptions::default()).unwrap();
        Self { folder, layout, guest }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn home(&self) -> Home {
        let home = Home::new(&self.layout.agent_dir());
        home.create(&self.guest).unwrap();
        home
    }

    fn sessions(&self) -> SessionStore {
        SessionStore::new(&self.layout)
    }

    fn move_aside(&self) -> PathBuf {
        let tree = self.layout.target_repo();
        move_aside(&self.guest, &self.layout, &tree, "run1", "it cannot be read").unwrap()
    }

    fn has_content(&self) -> bool {
        has_content(&self.guest, &self.layout.target_repo()).unwrap()
    }
}

#[test]
fn home_is_private_and_never_an_existing_directory() {
    let workspace = Workspace::new();
    let (one, other) = (workspace.home(), workspace.home());
    assert_ne!(one, other);
    for folder in [one.folder(), &one.home(), &one.tmp(), &one.cache()] {
        let mode = fs::symlink_metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    assert!(one.create(&workspace.guest).is_err(), "it exists");
    let parent = workspace.layout.agent_dir();
    assert_eq!(Home::named(&parent, &one.name()), Some(one));
    for name in ["", "..", "home", "../../0123456789ab", "0123456789abcde/"] {
        assert_eq!(Home::named(&parent, name), None, "{name}");
    }
}

#[test]
fn home_is_not_created_below_link() {
    let workspace = Workspace::new();
    let lead = workspace.path().join("lead");
    fs::create_dir(&lead).unwrap();
    symlink(&lead, workspace.layout.agent_dir()).unwrap();
    assert!(Home::new(&workspace.layout.agent_dir()).create(&workspace.guest).is_err());
    assert_eq!(fs::read_dir(&lead).unwrap().count(), 0);
}

#[test]
fn removal_deletes_links_and_not_their_targets() {
    let workspace = Workspace::new();
    let (lead, agent) = (workspace.path().join("lead"), workspace.layout.agent_dir());
    fs::create_dir_all(lead.join("deep")).unwrap();
    fs::write(lead.join("deep/.bashrc"), "mine").unwrap();
    let home = workspace.home();
    for at in [agent.join("home"), home.home().join("deep"), home.folder().join("x")] {
        symlink(&lead, at).unwrap();
    }
    symlink(lead.join("deep/.bashrc"), home.tmp().join("file")).unwrap();
    assert!(remove_all(&workspace.guest, &agent).unwrap());
    assert_eq!(fs::read_dir(&agent).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(lead.join("deep/.bashrc")).unwrap(), "mine");
    assert!(remove_all(&workspace.guest, &workspace.path().join("none")).unwrap());
}

#[test]
fn link_anywhere_on_the_way_is_not_followed() {
    let workspace = Workspace::new();
    let (lead, root) = (workspace.path().join("lead"), workspace.path().join("root"));
    for path in [&lead, &root.join("a/b")] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(lead.join("key"), "secret").unwrap();
    fs::write(root.join("a/b/plain"), "data").unwrap();
    symlink(lead.join("key"), root.join("a/b/link")).unwrap();
    symlink(&lead, root.join("a/folder")).unwrap();
    symlink(root.join("a"), root.join("inside")).unwrap();
    let read = |path: &str| read_file(&workspace.guest, format!("root/{path}").as_bytes(), MAX);
    assert_eq!(read("a/b/plain").unwrap(), Some(b"data".to_vec()));
    assert_eq!(read("a/b/none").unwrap(), None);
    assert_eq!(read("none/at/all").unwrap(), None);
    for path in ["a/b/link", "a/folder/key", "inside/b/plain", "a/b", "../lead/key"] {
        assert!(matches!(read(path), Err(ReadError::NotRegular)), "{path}: {:?}", read(path));
    }
}

#[test]
fn pipe_socket_or_oversized_file_is_refused_without_delay() {
    let workspace = Workspace::new();
    let path = |name: &str| workspace.path().join(name);
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), fifo, mode, 0).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    // Sparse: it takes no space.
    fs::File::create(path("huge")).unwrap().set_len(300 << 30).unwrap();
    for name in ["pipe", "socket"] {
        let read = read_file(&workspace.guest, name.as_bytes(), MAX);
        assert!(matches!(read, Err(ReadError::NotRegular)), "{name}: {read:?}");
    }
    let read = read_file(&workspace.guest, b"huge", MAX);
    assert!(matches!(read, Err(ReadError::TooLarge { max: MAX })), "{read:?}");
}

fn session_in(home: &Home) -> PathBuf {
    config_directory(home).join(format!("projects/-w-target-repo/{SESSION}.jsonl"))
}

#[test]
fn session_moves_to_fresh_home_and_nothing_else() {
    let workspace = Workspace::new();
    let (store, guest) = (workspace.sessions(), &workspace.guest);
    let first = workspace.home();
    fs::create_dir_all(session_in(&first).parent().unwrap()).unwrap();
    fs::write(session_in(&first), "{}\n").unwrap();
    fs::write(config_directory(&first).join("settings.json"), "{\"hooks\":{}}").unwrap();
    fs::write(first.home().join(".bashrc"), "echo planted").unwrap();
    store.record(SESSION, &first).unwrap();
    assert!(store.collect(SESSION, guest).unwrap());
    let second = workspace.home();
    let directory = Path::new("/w/target-repo");
    assert!(store.restore(SESSION, &second, directory, guest).unwrap());
    assert_eq!(fs::read_to_string(session_in(&second)).unwrap(), "{}\n");
    let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!(names(&second.home()), 1);
    assert_eq!(names(&config_directory(&second)), 1);
    // A home that something else wrote is not used.
    assert!(store.restore(SESSION, &second, directory, guest).is_err());
}

#[test]
fn planted_link_or_oversized_session_is_not_stored() {
    let workspace = Workspace::new();
    let (store, guest) = (workspace.sessions(), &workspace.guest);
    let key = workspace.path().join("key");
    fs::write(&key, "secret").unwrap();
    let home = workspace.home();
    store.record(SESSION, &home).unwrap();
    let file = session_in(&home);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    symlink(&key, &file).unwrap();
    assert!(matches!(store.collect(SESSION, guest), Err(ReadError::NotRegular)));
    fs::remove_file(&file).unwrap();
    fs::File::create(&file).unwrap().set_len(SESSION_MAX_BYTES + 1).unwrap();
    assert!(matches!(store.collect(SESSION, guest), Err(ReadError::TooLarge { .. })));
    // The project folder itself is a link.
    fs::remove_dir_all(config_directory(&home).join("projects")).unwrap();
    symlink(workspace.path(), config_directory(&home).join("projects")).unwrap();
    assert!(!store.collect(SESSION, guest).unwrap());
    let stored = fs::read_dir(workspace.layout.sessions()).unwrap();
    assert_eq!(stored.count(), 1, "only the record of the home");
}

#[test]
fn leftovers_of_killed_run_are_stored_once() {
    let workspace = Workspace::new();
    let (store, guest) = (workspace.sessions(), &workspace.guest);
    let home = workspace.home();
    fs::create_dir_all(session_in(&home).parent().unwrap()).unwrap();
    fs::write(session_in(&home), "kept\n").unwrap();
    store.record(SESSION, &home).unwrap();
    assert_eq!(store.collect_leftovers(guest), Vec::<String>::new());
    fs::remove_dir_all(home.folder()).unwrap();
    let next = workspace.home();
    assert!(store.restore(SESSION, &next, Path::new("/w/target-repo"), guest).unwrap());
    assert!(!store.restore("../../x", &next, Path::new("/w"), guest).unwrap());
}

#[test]
fn kept_files_are_named_ones_without_links() {
    let workspace = Workspace::new();
    let (store, guest) = (workspace.layout.kept().join("memory"), &workspace.guest);
    let (first, second, third) = (workspace.home(), workspace.home(), workspace.home());
    let names = ["memory.json".to_owned(), "other.json".to_owned()];
    kept::restore(&store, &names, &first, guest).unwrap();
    fs::write(first.home().join("memory.json"), "notes").unwrap();
    fs::write(first.home().join("unnamed.json"), "lost").unwrap();
    assert_eq!(kept::collect(&store, &names, &first, guest), Vec::<String>::new());
    kept::restore(&store, &names, &second, guest).unwrap();
    let memory = second.home().join("memory.json");
    assert_eq!(fs::read_dir(second.home()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&memory).unwrap(), "notes");
    // A planted link neither reads nor replaces anything.
    fs::remove_file(&memory).unwrap();
    symlink("/etc/passwd", &memory).unwrap();
    let problems = kept::collect(&store, &names, &second, guest);
    assert_eq!(problems, ["`memory.json` is not kept: it is not a regular file in a plain directory"]);
    assert_eq!(fs::read_to_string(store.join("memory.json")).unwrap(), "notes");
    // The home itself is a link to another one.
    fs::remove_dir_all(third.home()).unwrap();
    symlink(first.home(), third.home()).unwrap();
    fs::write(first.home().join("memory.json"), "replaced").unwrap();
    assert_eq!(kept::collect(&store, &names, &third, guest).len(), 2);
    assert_eq!(fs::read_to_string(store.join("memory.json")).unwrap(), "notes");
}

#[test]
fn kept_files_of_killed_run_are_collected() {
    let workspace = Workspace::new();
    let (stores, guest) = (workspace.layout.kept(), &workspace.guest);
    let home = workspace.home();
    let names = ["memory.json".to_owned()];
    kept::restore(&stores.join("memory"), &names, &home, guest).unwrap();
    fs::write(home.home().join("memory.json"), "notes").unwrap();
    let homes = workspace.layout.agent_dir();
    assert_eq!(kept::collect_leftovers(&stores, &homes, guest), Vec::<String>::new());
    let next = workspace.home();
    kept::restore(&stores.join("memory"), &names, &next, guest).unwrap();
    assert_eq!(fs::read_to_string(next.home().join("memory.json")).unwrap(), "notes");
}

#[test]
fn worktree_is_moved_whole_with_explanation() {
    let workspace = Workspace::new();
    let tree = workspace.layout.target_repo();
    let mut deep = tree.clone();
    deep.extend(std::iter::repeat_n("d", 600));
    fs::create_dir_all(&deep).unwrap();
    fs::write(tree.join("work"), "of hours").unwrap();
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o000)).unwrap();
    let moved = workspace.move_aside();
    fs::set_permissions(&moved, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!workspace.has_content() && !tree.exists());
    assert_eq!(fs::read_to_string(moved.join("work")).unwrap(), "of hours");
    let name = moved.file_name().unwrap().to_str().unwrap();
    assert!(moved.starts_with(workspace.layout.aside()) && name.starts_with("run1-"), "{name}");
    let why = fs::read_to_string(workspace.layout.aside().join(format!("{name}.txt"))).unwrap();
    assert!(why.contains("it cannot be read"), "{why}");
}

#[test]
fn worktrees_of_one_run_get_different_names() {
    let workspace = Workspace::new();
    let mut names = std::collections::BTreeSet::new();
    for number in 0..10 {
        fs::create_dir(workspace.layout.target_repo()).unwrap();
        fs::write(workspace.layout.target_repo().join("number"), number.to_string()).unwrap();
        names.insert(workspace.move_aside());
    }
    assert_eq!(names.len(), 10);
}

#[test]
fn link_in_place_of_worktree_is_moved_not_followed() {
    let workspace = Workspace::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("theirs"), "theirs").unwrap();
    symlink(outside.path(), workspace.layout.target_repo()).unwrap();
    let moved = workspace.move_aside();
    assert!(moved.symlink_metadata().unwrap().is_symlink());
    assert!(outside.path().join("theirs").exists());
}

#[test]
fn only_missing_or_empty_directory_has_no_content() {
    let workspace = Workspace::new();
    let tree = workspace.layout.target_repo();
    assert!(!workspace.has_content());
    fs::create_dir(&tree).unwrap();
    assert!(!workspace.has_content());
    fs::write(tree.join(".hidden"), "").unwrap();
    assert!(workspace.has_content());
    fs::remove_dir_all(&tree).unwrap();
    fs::write(&tree, "a file").unwrap();
    assert!(workspace.has_content());
}

/// Exports and the store of kept directories.
struct Kept {
    workspace: Workspace,
    store: PathBuf,
    names: Vec<WorkingDirectory>,
}

impl Kept {
    fn new(names: &[&str]) -> Self {
        let workspace = Workspace::new();
        let store = workspace.path().join(".orchestrator/keep/trader");
        let names = names.iter().map(|name| WorkingDirectory::new(*name).unwrap()).collect();
        Self { workspace, store, names }
    }

    fn export(&self, name: &str) -> PathBuf {
        let path = self.workspace.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn restore(&self, export: &Path) -> Vec<String> {
        keep::restore(&self.workspace.guest, &self.store, export, &self.names)
    }

    fn store(&self, export: &Path) -> Vec<String> {
        keep::store(&self.workspace.guest, &self.store, export, &self.names)
    }
}

#[test]
fn kept_directory_reaches_next_export() {
    let kept = Kept::new(&["target", "web/dist"]);
    let (first, second) = (kept.export("1"), kept.export("2"));
    fs::create_dir_all(first.join("web/dist")).unwrap();
    fs::write(first.join("web/dist/file"), "1").unwrap();
    assert!(kept.restore(&first).is_empty());
    assert_eq!(kept.store(&first), Vec::<String>::new());
    assert_eq!(kept.restore(&second), ["web/dist"]);
    assert_eq!(fs::read_to_string(second.join("web/dist/file")).unwrap(), "1");
    assert!(kept.restore(&second).is_empty(), "moved, not copied");
    fs::write(second.join("web/dist/file"), "2").unwrap();
    assert_eq!(kept.store(&second), Vec::<String>::new());
    assert_eq!(kept.restore(&first), ["web/dist"]);
}

#[test]
fn planted_link_is_not_kept() {
    let kept = Kept::new(&["target", "web/dist"]);
    let (tree, own) = (kept.export("tree"), kept.workspace.path().join("own"));
    fs::create_dir_all(own.join("dist")).unwrap();
    symlink(&own, tree.join("target")).unwrap();
    symlink(&own, tree.join("web")).unwrap();
    assert_eq!(kept.store(&tree).len(), 2);
    assert!(own.join("dist").is_dir());
    assert!(kept.restore(&tree).is_empty());
}

#[test]
fn directory_of_commit_is_not_replaced() {
    let kept = Kept::new(&["target", "web/dist"]);
    let tree = kept.export("tree");
    fs::create_dir_all(tree.join("target")).unwrap();
    symlink("elsewhere", tree.join("web")).unwrap();
    fs::create_dir_all(kept.store.join("target")).unwrap();
    fs::create_dir_all(kept.store.join("web%2Fdist")).unwrap();
    assert!(kept.restore(&tree).is_empty());
    assert!(tree.join("web").is_symlink());
}
