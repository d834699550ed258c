//! Landlock rules (kernel documentation: userspace-api/landlock).

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::spec::SandboxSpec;

/// The newest ABI whose rules are known here; older kernels apply the subset that they support.
const NEWEST: ABI = ABI::V6;

/// The oldest sufficient ABI: before it, a program could truncate files that it cannot write.
const OLDEST: ABI = ABI::V3;

/// The oldest sufficient ABI, as the kernel counts.
pub(super) const OLDEST_ABI: i64 = 3;

/// The ABI from which on signals and abstract Unix sockets are confined.
pub(super) const SCOPES_ABI: i64 = 6;

/// Devices that ordinary programs use; none is a terminal.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The shared memory of all programs of a machine, or of a container.
pub(super) const SHARED_MEMORY: &str = "/dev/shm";

/// Returns the kernel's Landlock ABI; 0 without Landlock.
#[must_use]
pub fn landlock_abi() -> i64 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call reads no memory and only returns a number.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    abi.max(0)
}

/// Returns a ruleset that denies every file, signals to others and their abstract Unix sockets.
fn deny_all() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(OLDEST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::Signal)?
        .scope(Scope::AbstractUnixSocket)?
        .create()
}

/// Allows this process, for good, only what the description names.
///
/// # Errors
/// Returns an error if the kernel has no Landlock, or an older one than [`OLDEST`].
pub(super) fn confine(spec: &SandboxSpec) -> Result<(), String> {
    confine_paths(spec).map_err(|error| format!("Landlock: {error}"))
}

fn confine_paths(spec: &SandboxSpec) -> Result<(), String> {
    let read = AccessFs::from_read(NEWEST);
    let write = AccessFs::from_all(NEWEST);
    let mut devices: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
    if spec.private_tmp && has_own_shared_memory() {
        devices.push(SHARED_MEMORY.into());
    }
    let rules = |paths: &[PathBuf], access| {
        let beneath = move |path: &PathBuf| {
            let file = PathFd::new(path).ok()?;
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            Some(Ok::<_, RulesetError>(PathBeneath::new(file, access)))
        };
        paths.iter().filter_map(beneath).collect::<Vec<_>>()
    };
    let restrict = || -> Result<RulesetStatus, RulesetError> {
        let status = deny_all()?
            .add_rules(rules(&[PathBuf::from("/proc"), PathBuf::from("/sys")], read))?
            .add_rules(rules(&spec.readable, read))?
            .add_rules(rules(&spec.writable, write))?
            .add_rules(rules(&devices, write))?
            .restrict_self()?;
        Ok(status.ruleset)
    };
    match restrict().map_err(|error| error.to_string())? {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err("not enforced by the kernel".to_owned()),
    }
}

/// Allows this process, for good, only files below an open directory; no link, mount or path leads out.
///
/// # Errors
/// Returns an error if the kernel has no Landlock, or an older one than [`OLDEST`].
pub(super) fn confine_to(root: BorrowedFd<'_>) -> Result<(), String> {
    let all = AccessFs::from_all(NEWEST);
    let restrict = || {
        deny_all()?
            // No program and no device.
            .add_rule(PathBeneath::new(root, all & !(AccessFs::Execute | AccessFs::IoctlDev)))?
            .restrict_self()
    };
    restrict().map(drop).map_err(|error: RulesetError| format!("Landlock: {error}"))
}

/// Confines signals and abstract Unix sockets, if the kernel can; files stay as they are.
///
/// # Errors
/// Returns an error if the kernel can but does not.
pub(super) fn confine_scopes() -> Result<(), String> {
    if landlock_abi() < SCOPES_ABI {
        return Ok(());
    }
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .scope(Scope::Signal)?
            .scope(Scope::AbstractUnixSocket)?
            .create()?
            .restrict_self()
    };
    restrict().map(drop).map_err(|error: RulesetError| format!("Landlock scopes: {error}"))
}

/// Returns whether `/dev/shm` is shared only with this container: in another pid namespace than the
/// machine's first one.
pub(super) fn has_own_shared_memory() -> bool {
    // PROC_PID_INIT_INO of the kernel.
    const FIRST: &str = "pid:[4026531836]";
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() != FIRST)
}
