//! What a process gives up before it runs a program that is not trusted.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::spec::Limits;

/// Closes the inherited descriptors above standard error when a program is executed.
///
/// Ours have the flag already; those of whatever started the supervisor may not.
pub(super) fn close_inherited_descriptors() {
    // SAFETY: marks descriptors only; needs Linux 5.11, as everything here does.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return;
    }
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for descriptor in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        // SAFETY: changes a flag of a descriptor; a closed one is an error without effect.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Sets the resource limits, which programs inherit.
pub(super) fn limit_resources(limits: Limits) {
    let core = Some(limits.core_bytes);
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: core, maximum: core });
    drop(std::fs::write("/proc/self/oom_score_adj", limits.oom_score_adj.to_string()));
}

/// Sets whether this process's own files in `/proc` belong to its user, who can then read its memory.
pub(super) fn set_dumpable(dumpable: bool) {
    let behavior = if dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    let _ = rustix::process::set_dumpable_behavior(behavior);
}

/// Drops all capabilities for good, see capabilities(7).
///
/// With `CAP_PERFMON` root could read the environment of every process in spite of Landlock
/// (`mm_access` in the kernel).
pub(super) fn drop_capabilities() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // Fail without the capability to do so; `no_new_privs` keeps programs from gaining any.
    let _ = rustix::thread::clear_ambient_capability_set();
    let _ = rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED,
    );
    for capability in CapabilitySet::all().iter() {
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    Ok(())
}
