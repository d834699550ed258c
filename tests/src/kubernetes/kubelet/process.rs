//! A program and all that it started: a container ends as a whole, and so do they.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

/// A process that may be somebody else's by now, unless it started at the same time.
type Known = (i32, u64);

/// A variable that tells whose a process is.
pub const MARKER: &str = "POD_OF_TEST";

/// A program and its descendants, those among them too whose parents are gone.
///
/// There is no namespace that would end them together. They are known by their parents, by the variable
/// [`MARKER`], or by a working folder in the pod's volumes. Whoever leaves his family at once, with
/// another environment and elsewhere, is not found; pods that share a claim at the same time are one.
#[derive(Clone)]
pub struct Group {
    pid: i32,
    mark: Vec<u8>,
    folders: Vec<PathBuf>,
    seen: Arc<Mutex<BTreeSet<Known>>>,
}

impl Group {
    /// The group of a process that has just started with this value of the variable, for a pod with these folders.
    pub fn of(pid: u32, mark: &str, folders: Vec<PathBuf>) -> Self {
        let pid = i32::try_from(pid).expect("a process id");
        let mark = format!("{MARKER}={mark}").into_bytes();
        let group = Self { pid, mark, folders, seen: Arc::default() };
        group.look();
        group
    }

    /// The program itself.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Remembers the descendants of now: they are no descendants once their parent is gone.
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

    /// Remembers those who are known by what they carry.
    fn look_closely(&self) {
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

    /// Asks the program to end; its children are its own affair.
    pub fn terminate(&self) {
        signal(self.pid, Signal::TERM);
    }

    /// Kills all of it.
    pub fn kill(&self) {
        // Whoever is stopped starts nothing while we look.
        signal(self.pid, Signal::STOP);
        self.look();
        signal(self.pid, Signal::KILL);
        self.kill_rest();
    }

    /// Kills what the program left behind.
    pub fn kill_rest(&self) {
        // A process may have started another after the look; its parent is dead in the second round.
        for _ in 0..3 {
            self.look_closely();
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
        // It may be gone already, which is as good.
        kill_process(pid, signal).ok();
    }
}

struct Process {
    parent: i32,
    start: u64,
}

/// The processes of this machine, but for those that ended and wait for their parents.
fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // proc_pid_stat(5): field 22, the third being the state.
        let start = fields.nth(17)?.parse().ok()?;
        (state != "Z").then_some((pid, Process { parent, start }))
    })
    .collect()
}
