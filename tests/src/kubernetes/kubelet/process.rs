//! A program and its descendants, which end together like the processes of a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

/// PID and start time: a PID may be reused.
type Known = (i32, u64);

/// Environment variable that marks the processes of a pod.
pub const MARKER: &str = "POD_OF_TEST";

/// A program and its descendants, including orphans.
///
/// No namespace contains them. They are found by parent, by the variable [`MARKER`], or by a working directory
/// in the pod's volumes. A process that leaves all three immediately is not found; concurrent pods that share a
/// claim count as one.
#[derive(Clone)]
pub struct Group {
    pid: i32,
    mark: Vec<u8>,
    folders: Vec<PathBuf>,
    seen: Arc<Mutex<BTreeSet<Known>>>,
}

impl Group {
    /// Creates the group of a process that was just spawned with this marker, for a pod with these directories.
    pub fn of(pid: u32, mark: &str, folders: Vec<PathBuf>) -> Self {
        let pid = i32::try_from(pid).expect("a process id");
        let mark = format!("{MARKER}={mark}").into_bytes();
        let group = Self { pid, mark, folders, seen: Arc::default() };
        group.look();
        group
    }

    /// Returns the PID of the program.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Records the current descendants: after their parent exits they are orphans.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let processes = processes();
        seen.retain(|(pid, start)| processes.get(pid).is_some_and(|it| it.start == *start));
        let mut family: BTreeSet<i32> = seen.iter().map(|(pid, _)| *pid).collect();
        family.insert(self.pid);
        loop {
            let more: Vec<i32> = processes
                .iter()
                .filter(|(pid, it)| family.contains(&it.parent) && !family.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                break;
            }
            family.extend(more);
        }
        seen.extend(family.iter().filter_map(|pid| Some((*pid, processes.get(pid)?.start))));
    }

    /// Records processes with the marker or with a working directory in the volumes.
    fn record_marked(&self) {
        let carriers = processes().into_iter().filter(|(pid, _)| self.is_marked(*pid));
        let carriers: Vec<Known> = carriers.map(|(pid, it)| (pid, it.start)).collect();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(carriers);
        self.look();
    }

    fn is_marked(&self, pid: i32) -> bool {
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        variables.split(|byte| *byte == 0).any(|it| it == self.mark)
            || fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|here| self.folders.iter().any(|folder| here.starts_with(folder)))
    }

    /// Terminates the program only; it is responsible for its children.
    pub fn terminate(&self) {
        signal(self.pid, Signal::TERM);
    }

    /// Kills the whole group.
    pub fn kill(&self) {
        // A stopped process spawns nothing during the search.
        signal(self.pid, Signal::STOP);
        self.look();
        signal(self.pid, Signal::KILL);
        self.kill_rest();
    }

    /// Kills the descendants of an exited program.
    pub fn kill_rest(&self) {
        // A process may have spawned another after the search; the second round finds it.
        for _ in 0..3 {
            self.record_marked();
            let seen: Vec<Known> =
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
            let rest: Vec<Known> = seen.into_iter().filter(|(pid, _)| *pid != self.pid).collect();
            if rest.is_empty() {
                return;
            }
            rest.iter().for_each(|(pid, _)| signal(*pid, Signal::KILL));
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The process may have exited already.
        kill_process(pid, signal).ok();
    }
}

struct Process {
    parent: i32,
    start: u64,
}

/// Returns the processes of this machine, without zombies.
fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may contain any character.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // proc_pid_stat(5): field 22; the state is field 3.
        let start = fields.nth(17)?.parse().ok()?;
        (state != "Z").then_some((pid, Process { parent, start }))
    })
    .collect()
}
