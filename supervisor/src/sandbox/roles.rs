//! One builder for each role: what its sandbox contains.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::spec::{Kind, NetworkView, Role, SandboxSpec, canonical_dir};

/// System directories that programs need. What of them holds secrets is in [`HIDDEN`].
const SYSTEM: &[&str] = &[
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/proc",
    "/sys",
    "/var/lib/dpkg",
    "/snap",
];

/// Directories and files that the loader reads to start a program.
const LOADER: &[&str] =
    &["/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache"];

/// Where resolv.conf(5) may lead to.
const DNS: &[&str] =
    &["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"];

/// Secrets and kernel internals in [`SYSTEM`] that root could read.
const HIDDEN: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/etc/NetworkManager/system-connections",
    "/etc/wireguard",
    "/etc/letsencrypt",
    "/etc/docker",
    "/etc/kubernetes",
    "/etc/rancher",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// What all sandboxes of a machine share.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The search path for programs.
    pub path: OsString,
    pub rustup_home: Option<PathBuf>,
    /// This executable, which runs as guest and relay.
    pub supervisor: PathBuf,
    /// Further readable paths, from the user.
    pub allow_read: Vec<PathBuf>,
}

/// What belongs to one run.
#[derive(Clone, Debug)]
pub struct RunPlaces {
    /// The tree that the agent works in.
    pub worktree: PathBuf,
    /// Whether all of the tree is writable. Each session of a docs run gets one directory of it.
    pub worktree_writable: bool,
    /// Checkout with the task's documents, if it is another tree.
    pub documents: Option<PathBuf>,
    /// Objects that the tree's repository borrows.
    pub objects: PathBuf,
    /// Caches that setup commands filled from reviewed code.
    pub caches: PathBuf,
    /// Its own directory: home, caches, temporary files.
    pub home: PathBuf,
}

/// Returns the sandbox of a role in a run.
///
/// A tool's has no path of the run, and a guest's one tree ([`guest`]); the caller adds others.
#[must_use]
pub fn build(role: Role, kind: Kind, places: &Places, run: &RunPlaces) -> SandboxSpec {
    match role {
        Role::Agent | Role::Setup => in_run(machine(role, kind, places), run),
        // Its home holds the export of a commit; it sees no file of the agent.
        Role::Verify => beside_agent(machine(role, kind, places), run),
        Role::Tool => machine(role, kind, places),
        Role::Guest => guest(kind, &places.supervisor, &run.worktree, run.worktree_writable),
    }
}

fn in_run(spec: SandboxSpec, run: &RunPlaces) -> SandboxSpec {
    let spec = beside_agent(spec, run).read(run.documents.clone());
    let worktree = [run.worktree.clone()];
    if run.worktree_writable { spec.write(worktree) } else { spec.read(worktree) }
}

fn beside_agent(spec: SandboxSpec, run: &RunPlaces) -> SandboxSpec {
    spec.read([&run.objects, &run.caches]).write([&run.home])
}

/// Returns a sandbox that sees the system and the toolchain.
#[must_use]
pub fn machine(role: Role, kind: Kind, places: &Places) -> SandboxSpec {
    let mut spec = SandboxSpec::new(role, kind).read(SYSTEM).read(DNS).read([places.supervisor.clone()]);
    spec.readable.extend(places.rustup_home.clone());
    for folder in std::env::split_paths(&places.path).filter(|folder| folder.is_absolute()) {
        if canonical_dir(&folder).is_none() {
            // Missing, or the root directory.
            continue;
        }
        // npm executables are links into a sibling of `.bin`.
        if folder.ends_with(".bin") {
            spec.readable.extend(folder.parent().map(Path::to_owned));
        }
        spec.readable.push(folder);
    }
    spec.hidden.extend(HIDDEN.iter().map(PathBuf::from));
    spec.read(places.allow_read.clone())
}

/// Returns the sandbox of a process of ours that sees one directory and no network.
///
/// Its limits let it outlive the agent when memory is short.
#[must_use]
pub fn guest(kind: Kind, supervisor: &Path, tree: &Path, writable: bool) -> SandboxSpec {
    let spec = SandboxSpec::new(Role::Guest, kind).read(LOADER).read([supervisor]);
    let mut spec = if writable { spec.write([tree]) } else { spec.read([tree]) };
    spec.network = NetworkView::None;
    spec.private_tmp = false;
    spec.limits.oom_score_adj = 250;
    spec
}

/// Returns example places, for tests and for an explanation without a run.
#[must_use]
pub(super) fn example(workspace: &Path) -> RunPlaces {
    use orchestrator_contract::layout::Layout;
    let layout = Layout::new(workspace);
    RunPlaces {
        worktree: layout.target_repo(),
        worktree_writable: true,
        documents: Some(layout.platform_repo()),
        objects: layout.target_control().join("objects"),
        caches: layout.trusted_caches(),
        home: layout.agent_dir().join("RANDOM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_of_each_role_matches_snapshot() {
        let places = Places { supervisor: "/opt/supervisor".into(), ..Places::default() };
        let all = Role::ALL.map(|role| build(role, Kind::Namespaces, &places, &example(Path::new("/w"))));
        insta::assert_json_snapshot!(all);
    }

    #[test]
    fn only_guest_has_no_network_and_no_system() {
        let places = Places::default();
        for role in Role::ALL {
            let spec = build(role, Kind::Landlock, &places, &example(Path::new("/w")));
            let guest = role == Role::Guest;
            assert_eq!(spec.network == NetworkView::None, guest, "{role:?}");
            assert_eq!(!spec.readable.contains(&"/etc".into()), guest, "{role:?}");
        }
    }

    #[test]
    fn search_path_adds_existing_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("node_modules/.bin");
        std::fs::create_dir_all(&bin).unwrap();
        let path = format!("relative:/:{}:/missing", bin.display()).into();
        let places = Places { path, ..Places::default() };
        let without = machine(Role::Tool, Kind::Off, &Places::default());
        let spec = machine(Role::Tool, Kind::Off, &places);
        let added = spec.readable.iter().filter(|path| !without.readable.contains(path));
        assert_eq!(added.collect::<Vec<_>>(), [bin.parent().unwrap(), &bin]);
    }
}
