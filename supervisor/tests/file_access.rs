//! Lists every production file that accesses the file system, with the reason why it may.
//!
//! The supervisor opens no path that something in a sandbox can write: the guest does. A new file
//! that accesses files fails here until its reason is written down.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Words of an access to files.
const WORDS: &[&str] = &[
    "std::fs",
    "tokio::fs",
    "rustix::fs",
    " fs::",
    "(fs::",
    " File::",
    "(File::",
    "OpenOptions",
    "symlink_metadata(",
    ".read_dir(",
    ".exists()",
    ".is_dir()",
    ".is_file()",
    "canonicalize(",
    "tempfile::",
];

/// Files below `src` that may access files, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("agent/gateway/upstream.rs", "reads certificates that the operator configures"),
    ("agent/prepare_session.rs", "writes the prompt into the run's record"),
    ("agent/reader.rs", "writes the transcript into the run's record"),
    ("app.rs", "creates the workspace and the run's record, both the supervisor's own"),
    ("config/process_env.rs", "reads files that the operator configures"),
    ("config/secrets.rs", "reads secret files, which no sandbox sees"),
    ("container/facts.rs", "the guest's side, in the container"),
    ("container/host.rs", "the socket's directory, which containers mount read-only"),
    ("container/server.rs", "the guest's side, in the container"),
    ("container/volumes.rs", "makes the directories of volumes before any other container starts"),
    ("container/volumes/former.rs", "moves what a volume of the former layout holds, by renaming alone"),
    ("container/volumes/tools.rs", "copies the programs of the image"),
    ("endpoint.rs", "sockets in a directory that the agent's container mounts read-only"),
    ("event_loop.rs", "writes the supervisor's own records"),
    ("event_loop/run_report.rs", "honest exception: looks at the record of the run and its folders"),
    ("git/agent_git_dir.rs", "reads `shallow` of the control repository"),
    (
        "git/checkout.rs",
        "creates the worktree's folder in the workspace's root, and exports into the supervisor's own folders",
    ),
    ("git/control.rs", "the control repository, which no sandbox can write"),
    ("git/copy_objects.rs", "writes the quarantine in the supervisor's own scratch folder"),
    ("git/export.rs", "writes bundles and patches into the run's record"),
    ("git/import.rs", "creates the quarantine in the supervisor's own scratch folder"),
    ("git/index.rs", "writes an index file in the supervisor's own scratch folder"),
    ("git/remove.rs", "removes trees relative to open folders, without following a link"),
    ("git/rules.rs", "copies rule files into a folder of the control repository"),
    ("git/stat_cache.rs", "reads and writes the cache in the supervisor's own directory"),
    ("git/transfer/child.rs", "checks a local remote, in the transfer process"),
    ("git/transport/http.rs", "buffers a pack in an unnamed temporary file"),
    ("git/transport/passwd.rs", "reads the passwd file of the image"),
    ("git/transport/ssh.rs", "writes known hosts into a private temporary folder"),
    ("git/write_files.rs", "writes exports into the supervisor's own folders"),
    ("guest/beneath.rs", "the guest's side, and the primitives beneath an open folder"),
    ("guest/files.rs", "the guest's side, in the sandbox"),
    ("guest/message.rs", "decodes file types; opens nothing"),
    ("guest/tree.rs", "the guest's side, and exports into the supervisor's own folders"),
    ("homes/kept.rs", "the supervisor's own store of kept data; homes through a guest"),
    ("homes/sessions.rs", "the supervisor's own store of sessions; homes through a guest"),
    ("mcp/relay_client.rs", "the agent's side: copies between descriptors"),
    ("mcp/catalog.rs", "reads server files that the operator configures"),
    ("mcp/installed.rs", "looks for programs of the image"),
    ("mcp/sandbox.rs", "looks at programs and folders of the image for the rules of a sandbox"),
    ("mcp/tokens.rs", "reads service account tokens, which no sandbox sees"),
    ("process/memory.rs", "reads the control group's counters in /proc and /sys"),
    ("process/reaper.rs", "reads the process table in /proc"),
    ("process/strays.rs", "reads the process table in /proc"),
    ("publish/push.rs", "writes bundles into the run's record"),
    ("publish/save.rs", "creates the supervisor's own scratch folder"),
    ("record/event_log.rs", "writes the event log in the run's record"),
    ("record/file.rs", "writes records atomically in the supervisor's own directory"),
    ("record/termination.rs", "writes the pod's termination message"),
    ("sandbox/mounts.rs", "mounts in the new root, before the program starts"),
    ("sandbox/namespaces.rs", "writes the uid maps of its own namespace in /proc"),
    ("sandbox/probe.rs", "a folder of its own, to try a sandbox"),
    ("sandbox/rights.rs", "sets limits of its own process in /proc"),
    ("sandbox/root.rs", "builds the new root, before the program starts"),
    ("sandbox/rules.rs", "opens paths that the sandbox shows, to make rules for the kernel"),
    ("sandbox/select.rs", "reads kernel settings in /proc"),
    ("sandbox/spec.rs", "resolves folders of the machine that the sandbox shows"),
    ("sandbox/visible.rs", "looks at folders of the machine that the sandbox shows"),
    (
        "workspace/aside.rs",
        "moves damaged records in the supervisor's own directory; worktrees through a guest",
    ),
    ("workspace/attempts.rs", "counts attempts in the supervisor's own directory"),
    ("workspace/caches.rs", "honest exception: copies trusted caches, which only setup commands wrote"),
    ("workspace/import_caches.rs", "writes trusted caches in the supervisor's own directory"),
    ("workspace/lock.rs", "the workspace's lock, in the supervisor's own directory"),
    ("workspace/preflight.rs", "checks the workspace's folders before the agent starts"),
    ("workspace/recover.rs", "counts recoveries in the supervisor's own directory"),
    ("workspace/reserve.rs", "the disk reserve, in the supervisor's own directory"),
    ("workspace/state.rs", "records of the worktree, in the supervisor's own directory"),
    ("workspace/tools.rs", "writes files of MCP servers into the run's record"),
];

#[test]
fn only_listed_files_access_the_file_system() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    read(&source, &source, &mut found);
    assert!(found.len() > 100, "only {} sources found", found.len());
    let accesses: BTreeSet<&str> =
        found.iter().filter(|(_, words)| !words.is_empty()).map(|(file, _)| file.as_str()).collect();
    let allowed: BTreeMap<&str, &str> = ALLOWED.iter().copied().collect();
    assert_eq!(allowed.len(), ALLOWED.len(), "a file is listed twice");
    let unlisted: Vec<String> = accesses
        .iter()
        .filter(|file| !allowed.contains_key(*file))
        .map(|file| format!("{file}: {:?}", found[*file]))
        .collect();
    assert!(
        unlisted.is_empty(),
        "these files access the file system; read what a sandbox can write through its guest, or list them with \
         a reason:\n{}",
        unlisted.join("\n")
    );
    let stale: Vec<_> = allowed.keys().filter(|file| !accesses.contains(*file)).collect();
    assert!(stale.is_empty(), "these files no longer access the file system: {stale:?}");
    for (file, why) in &allowed {
        assert!(why.len() > 10, "{file} has no reason");
    }
}

/// Files of the worktree's area: they speak with a guest, and have no path to a worktree.
#[test]
fn worktree_operations_have_no_path_to_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/git");
    for name in ["snapshot.rs", "walk.rs", "save_files.rs", "import.rs", "agent_git_dir.rs"] {
        let text = std::fs::read_to_string(source.join(name)).unwrap();
        assert!(text.contains("guest: &Guest"), "{name} uses no guest");
        assert!(!text.contains("worktree: &Path"), "{name} has a path to the worktree");
        assert!(!text.contains("guest.root().join"), "{name} opens a path below the worktree");
    }
}

fn read(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<&'static str>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code: Vec<&str> =
                production(&text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let code = code.join("\n");
            found.insert(name, WORDS.iter().copied().filter(|word| code.contains(word)).collect());
        }
    }
}

/// Returns the source up to its inline test module.
fn production(text: &str) -> &str {
    let is_tests = |at: usize| text[at..].lines().take(3).any(|line| line.ends_with("mod tests {"));
    let end = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| is_tests(*at));
    &text[..end.unwrap_or(text.len())]
}
