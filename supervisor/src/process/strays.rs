//! Kills processes that a killed supervisor left behind.
//!
//! The caller holds the lock of the workspace, so no run is active in it: a process whose home is in
//! the agent's directory belongs to a run that is over. A process can hide by changing its
//! environment; the sandbox ends such a process with the supervisor.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How often the process table is read while processes are being killed.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Kills processes of this user whose `HOME` is below `homes`, and waits for them to exit.
///
/// Returns the process ids that were found. One that has not exited after `limit` is not waited for.
pub async fn kill_strays(homes: &Path, limit: Duration) -> Vec<u32> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut found = Vec::new();
    loop {
        let running = strays(homes);
        for &pid in &running {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have exited in the meantime.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        found.extend(running.iter().filter(|pid| !found.contains(*pid)).copied().collect::<Vec<_>>());
        if running.is_empty() || tokio::time::Instant::now() >= deadline {
            return found;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn strays(homes: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // A zombie has no environment.
    pids.filter(|pid| *pid != std::process::id() && has_home_below(*pid, homes)).collect()
}

fn has_home_below(pid: u32, homes: &Path) -> bool {
    // Fails for processes of other users.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).filter_map(|variable| variable.strip_prefix(b"HOME=")).any(|home| {
        let home = Path::new(std::ffi::OsStr::from_bytes(home));
        home != homes && home.starts_with(homes)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Environment, ProcessGroup, command, spawn};
    use super::*;

    #[tokio::test]
    async fn only_processes_with_home_in_workspace_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let homes = folder.path().join("agent");
        let sleep = |home: &Path| {
            let environment: Environment =
                [("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), home.into())].into_iter().collect();
            let mut sleep = command("sleep", &environment, ProcessGroup::New);
            sleep.arg("300");
            spawn(sleep).unwrap()
        };
        let mut stray = sleep(&homes.join("home/run1"));
        let mut beside = sleep(&folder.path().join("agent2/home"));
        let mut outside = sleep(Path::new("/nonexistent"));
        let reaper = tokio::spawn(async move { stray.wait().await.unwrap() });
        let found = kill_strays(&homes, Duration::from_secs(20)).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(reaper.await.unwrap(), crate::process::Exit::Signal(9));
        assert_eq!(beside.try_wait().unwrap(), None);
        assert_eq!(outside.try_wait().unwrap(), None);
        for child in [&mut beside, &mut outside] {
            child.kill().await;
        }
    }
}
