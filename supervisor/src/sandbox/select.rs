//! Chooses the kind of sandbox of a run: the strongest one that this machine can make.

use std::path::Path;

use super::probe::probe;
use super::rules::{OLDEST_ABI, SCOPES_ABI, has_own_shared_memory, landlock_abi};
use super::spec::Kind;

/// Whether a run needs a sandbox.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Requirement {
    /// Do not run without one
    #[default]
    Required,
    /// Run without one if the machine cannot make any; the outcome says so
    BestEffort,
    /// Run without one: the agent's programs can do everything that the supervisor's user can
    Off,
}

/// The sandbox of a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelectedSandbox {
    pub kind: Kind,
    /// What the kind does not separate, or does not allow, on this machine: one sentence each.
    pub remarks: Vec<String>,
    /// Why the run must not start: it needs a sandbox, and this machine can make none.
    pub refused: Option<String>,
}

/// What turning the sandbox off means.
const OFF: &str =
    "the agent's programs can read and change everything that this user can, including credentials";

/// Chooses a kind by making one of each, strongest first; `forced` leaves only one to try.
#[must_use]
pub fn select(requirement: Requirement, forced: Option<Kind>, supervisor: &Path) -> SelectedSandbox {
    select_with(requirement, forced, |kind| probe(supervisor, kind))
}

fn select_with(
    requirement: Requirement,
    forced: Option<Kind>,
    probe: impl Fn(Kind) -> Result<(), String>,
) -> SelectedSandbox {
    if requirement == Requirement::Off {
        let remarks = vec![format!("the sandbox is turned off: {OFF}")];
        return SelectedSandbox { kind: Kind::Off, remarks, refused: None };
    }
    let mut problems = Vec::new();
    for kind in Kind::CONFINING.into_iter().filter(|kind| forced.is_none_or(|forced| forced == *kind)) {
        match probe(kind) {
            Ok(()) => return SelectedSandbox { kind, remarks: remarks(kind, &problems), refused: None },
            Err(problem) => problems.push(format!("{}: {problem}", kind.name())),
        }
    }
    let problems = problems.join("; ");
    let refused = match requirement {
        Requirement::Required => Some(format!(
            "this machine cannot make a sandbox ({problems}). {}, use a container (`--backend docker`), or \
             turn the sandbox off (`--sandbox off`): then {OFF}",
            way_to_namespaces()
        )),
        Requirement::BestEffort | Requirement::Off => None,
    };
    let remarks = vec![format!("NO SANDBOX, because this machine cannot make one ({problems}): {OFF}")];
    SelectedSandbox { kind: Kind::Off, remarks, refused }
}

/// Returns what a kind lacks on this machine, and how to get a stronger one.
fn remarks(kind: Kind, problems: &[String]) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut add = |text: String| remarks.push(text);
    let scopes = landlock_abi() >= SCOPES_ABI;
    match kind {
        Kind::Namespaces if scopes => {}
        Kind::Namespaces => add(format!(
            "abstract Unix sockets of this machine are reachable: the kernel has no Landlock ABI {SCOPES_ABI}"
        )),
        Kind::Landlock => {
            if !problems.is_empty() {
                add(format!(
                    "a stronger sandbox is not available ({}). {}",
                    problems.join("; "),
                    way_to_namespaces()
                ));
            }
            add("programs cannot use Unix sockets with a name (such as PostgreSQL's) and cannot open new \
                 terminals"
                .to_owned());
            add("programs see the process list of this machine".to_owned());
            if !scopes {
                add(format!(
                    "programs can signal other processes of this user: the kernel has no Landlock ABI {SCOPES_ABI}"
                ));
            }
            if !has_own_shared_memory() {
                add("programs cannot use POSIX shared memory: /dev/shm holds that of other programs"
                    .to_owned());
            }
        }
        Kind::Off => {}
    }
    remarks
}

/// Returns what allows user namespaces on this machine, as the start of a sentence.
fn way_to_namespaces() -> String {
    let is = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "Allow user namespaces (sysctl user.max_user_namespaces=10000)".to_owned();
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "Allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)".to_owned();
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "Allow the supervisor user namespaces with the AppArmor profile in docs/apparmor".to_owned();
    }
    format!(
        "Allow user namespaces (Linux 5.12 or newer; a container runtime may forbid them), or use a kernel with \
         Landlock ABI {OLDEST_ABI} (Linux 6.2 or newer)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strongest_possible_kind_is_selected() {
        let possible = |kinds: &'static [Kind]| {
            move |kind| if kinds.contains(&kind) { Ok(()) } else { Err("no such call".to_owned()) }
        };
        let both: &[Kind] = &[Kind::Namespaces, Kind::Landlock];
        let cases = [
            (Requirement::Required, None, both, Kind::Namespaces, false),
            (Requirement::Required, None, &[Kind::Landlock], Kind::Landlock, false),
            (Requirement::Required, Some(Kind::Landlock), both, Kind::Landlock, false),
            (Requirement::Required, Some(Kind::Namespaces), &[Kind::Landlock], Kind::Off, true),
            (Requirement::Required, None, &[], Kind::Off, true),
            (Requirement::BestEffort, None, &[], Kind::Off, false),
            (Requirement::BestEffort, None, both, Kind::Namespaces, false),
            (Requirement::Off, None, both, Kind::Off, false),
        ];
        for (requirement, forced, kinds, kind, refused) in cases {
            let selected = select_with(requirement, forced, possible(kinds));
            assert_eq!((selected.kind, selected.refused.is_some()), (kind, refused), "{requirement:?}");
            assert_eq!(selected.remarks.is_empty(), kind == Kind::Namespaces && landlock_abi() >= SCOPES_ABI);
        }
    }

    #[test]
    fn refusal_names_causes_with_all_ways_on() {
        let selected = select_with(Requirement::Required, None, |_| Err("refused".to_owned()));
        let refused = selected.refused.unwrap();
        for part in ["namespaces: refused", "landlock: refused", "--backend docker", "--sandbox off"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
