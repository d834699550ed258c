//! The system call filter, see seccomp(2).
//!
//! Denied calls fail with `EPERM`. A program of another architecture is killed: the numbers of its
//! calls mean other calls here.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

use super::spec::{Kind, NetworkView, SandboxSpec};

/// Calls that no program here needs, with a history of faults or with reach outside of a sandbox.
const DENIED: &[i64] = &[
    // The keys of the session that the supervisor was started in.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Its operations pass by this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Further calls denied where the process table and IPC objects are shared with others.
const DENIED_IF_SHARED: &[i64] = &[
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setns,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
];

/// Further calls denied to our own processes, which have one known task.
const DENIED_TO_OURS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_personality,
];

/// Calls with an older number on x86-64 only.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[i64] = &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_mknod];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[i64] = &[];

/// Bit of the numbers of x32 calls, which have the architecture of x86-64 (syscall.tbl).
const X32_BIT: u32 = 0x4000_0000;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Applies the filter to this process, for good. Needs `no_new_privs`.
///
/// # Errors
/// Returns an error if the kernel has no system call filters.
pub(super) fn apply(spec: &SandboxSpec) -> Result<(), String> {
    for filter in filters(spec)? {
        apply_filter(&filter).map_err(|error| format!("system call filter: {error}"))?;
    }
    Ok(())
}

/// Applies the filter of a process of ours: no program, no process, and sockets as described.
///
/// # Errors
/// Returns an error if the kernel has no system call filters.
pub(super) fn apply_to_ours(spec: &SandboxSpec) -> Result<(), String> {
    let mut rules: Rules =
        DENIED_TO_OURS.iter().chain(OLD_CALLS).map(|number| (*number, Vec::new())).collect();
    if spec.network == NetworkView::None {
        rules.extend([libc::SYS_connect, libc::SYS_bind].map(|number| (number, Vec::new())));
    }
    add_process_rules(&mut rules).map_err(|error| error.to_string())?;
    let more = compile(rules, SeccompAction::Errno(libc::EPERM as u32))?;
    for filter in filters(spec)?.iter().chain([&more]) {
        apply_filter(filter).map_err(|error| format!("system call filter: {error}"))?;
    }
    Ok(())
}

/// Denies new processes, and signals to others; threads are allowed, and so is abort(3).
fn add_process_rules(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let is_process = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_process])?]);
    let own = std::process::id().into();
    let of_others = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![of_others])?]);
    Ok(())
}

/// Returns one filter for each way to deny a call.
fn filters(spec: &SandboxSpec) -> Result<Vec<BpfProgram>, String> {
    let mut rules: Rules = DENIED.iter().map(|number| (*number, Vec::new())).collect();
    add_socket_rules(&mut rules, spec).map_err(|error| error.to_string())?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    if spec.kind != Kind::Landlock {
        return Ok(vec![compile(rules, denied)?]);
    }
    rules.extend(DENIED_IF_SHARED.iter().map(|number| (*number, Vec::new())));
    add_namespace_rules(&mut rules).map_err(|error| error.to_string())?;
    // A filter cannot read the flags of this call. Without it, libraries use clone(2).
    let missing = Rules::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![compile(rules, denied)?, compile(missing, SeccompAction::Errno(libc::ENOSYS as u32))?])
}

/// Denies sockets of address families other than the allowed ones, see `address_families(7)`.
fn add_socket_rules(rules: &mut Rules, spec: &SandboxSpec) -> Result<(), seccompiler::BackendError> {
    let network = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let mut families = match spec.network {
        NetworkView::Open => network.to_vec(),
        NetworkView::None => Vec::new(),
    };
    let unix = |operator, argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.unsigned_abs().into())
    };
    match spec.kind {
        // Sockets with a path are those that were mounted; abstract ones are up to Landlock.
        Kind::Namespaces => families.push(libc::AF_UNIX),
        Kind::Landlock | Kind::Off => {
            // A datagram socket of a pair can be connected to another address; streams cannot.
            let of_type = SeccompCmpOp::MaskedEq(0xf);
            let datagrams = SeccompRule::new(vec![unix(of_type, 1, libc::SOCK_DGRAM)?])?;
            rules.insert(libc::SYS_socketpair, vec![datagrams]);
        }
    }
    let others =
        families.iter().map(|family| unix(SeccompCmpOp::Ne, 0, *family)).collect::<Result<Vec<_>, _>>()?;
    let denied = if others.is_empty() { Vec::new() } else { vec![SeccompRule::new(others)?] };
    rules.insert(libc::SYS_socket, denied);
    Ok(())
}

/// Denies new user namespaces, in which a program has capabilities.
fn add_namespace_rules(rules: &mut Rules) -> Result<(), seccompiler::BackendError> {
    let flag = libc::CLONE_NEWUSER.unsigned_abs().into();
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let has_flag = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
        rules.insert(call, vec![SeccompRule::new(vec![has_flag])?]);
    }
    Ok(())
}

fn compile(rules: Rules, denied: SeccompAction) -> Result<BpfProgram, String> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).map_err(|error| error.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|error| error.to_string())?;
    Ok(if std::env::consts::ARCH == "x86_64" { without_x32(program) } else { program })
}

/// Kills programs that make x32 calls: their numbers match no rule.
fn without_x32(program: BpfProgram) -> BpfProgram {
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let head = [
        // The call's number is at offset 0 of `seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    head.into_iter().chain(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::spec::Role;

    #[test]
    fn every_kind_and_network_view_compiles() {
        for kind in [Kind::Namespaces, Kind::Landlock] {
            for network in [NetworkView::Open, NetworkView::None] {
                let spec = SandboxSpec { network, ..SandboxSpec::new(Role::Tool, kind) };
                let filters = filters(&spec).unwrap();
                assert_eq!(filters.len(), if kind == Kind::Landlock { 2 } else { 1 });
            }
        }
    }
}
