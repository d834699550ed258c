//! Counts out-of-memory kills in the supervisor's control group.

use std::path::PathBuf;

/// Returns the number of out-of-memory kills in this control group, if the kernel counts them.
#[must_use]
pub fn oom_kill_count() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let (files, field) = event_files(&groups)?;
    let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok())?;
    parse_count(&text, field)
}

/// Returns the candidates for the event file and the field, from `/proc/self/cgroup`.
///
/// See cgroups(7): version 2 has one line `0::/path`, version 1 one line per controller.
/// A container without a cgroup namespace sees the host's path, but its own group is
/// mounted as the root; the second candidate is in the root.
fn event_files(groups: &str) -> Option<([PathBuf; 2], &'static str)> {
    let split = |line: &'_ str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    let lines = || groups.lines().filter_map(split);
    let join = |root: &str, path: &str, file: &str| {
        let own = PathBuf::from(format!("{root}{}/{file}", path.trim_end_matches('/')));
        [own, PathBuf::from(format!("{root}/{file}"))]
    };
    let memory = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    if let Some((_, path)) = memory {
        return Some((join("/sys/fs/cgroup/memory", &path, "memory.oom_control"), "oom_kill"));
    }
    let (_, path) = lines().find(|(controllers, _)| controllers.is_empty())?;
    Some((join("/sys/fs/cgroup", &path, "memory.events"), "oom_kill"))
}

fn parse_count(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kill_count_reads_cgroup_v1_or_v2() {
        let (files, _) = event_files("5:cpu:/a\n4:memory:/b\n0::/c\n").unwrap();
        let in_root = "/sys/fs/cgroup/memory/memory.oom_control";
        assert_eq!(files, [PathBuf::from("/sys/fs/cgroup/memory/b/memory.oom_control"), in_root.into()]);
        let (files, _) = event_files("0::/kubepods/x\n").unwrap();
        let in_root = "/sys/fs/cgroup/memory.events";
        assert_eq!(files, [PathBuf::from("/sys/fs/cgroup/kubepods/x/memory.events"), in_root.into()]);
        assert_eq!(parse_count("oom 3\noom_kill 2\noom_group_kill 0\n", "oom_kill"), Some(2));
    }
}
