//! Modules that are declared pure stay pure, checked in the sources.

#![expect(clippy::unwrap_used, reason = "a failed assumption fails the test")]

use std::path::{Path, PathBuf};

/// Returns the source files below a directory with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn task_domain_uses_no_io_clock_or_sibling_modules() {
    let forbidden = [
        "std::fs",
        "std::process",
        "std::env",
        "tokio",
        "rustix",
        "Timestamp::now",
        "crate::backend",
        "crate::cli",
        "crate::config",
        "crate::files",
        "crate::output",
        "crate::operations",
    ];
    let sources = sources("src/task");
    assert!(sources.len() > 5);
    for (path, text) in sources {
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn mcp_text_modules_use_no_io_or_clock() {
    let forbidden =
        ["std::fs", "std::process", "std::env", "tokio", "rustix", "Timestamp::now", "crate::backend"];
    let mut sources = sources("src/mcp/text");
    for name in ["outputs.rs", "arguments.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mcp").join(name);
        sources.push((path.clone(), std::fs::read_to_string(path).unwrap()));
    }
    assert!(sources.len() > 6);
    for (path, text) in sources {
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

/// Checks for items that other systems than Linux lack: the compiler for Linux does not report them.
#[test]
fn dispatcher_uses_no_linux_only_features() {
    let forbidden = [
        "/proc/",
        "std::os::linux",
        "/dev/shm",
        "abstract_name",
        "NOATIME",
        "TMPFILE",
        "RenameFlags",
        "renameat_with",
        "fdatasync",
        "fallocate",
        "memfd",
        "pidfd",
        "prctl",
        "pipe_with",
        "accept_with",
        "SIGRTM",
        "epoll",
        "inotify",
        "getrandom",
        "statx",
        "openat2",
        "rustix::thread",
        "rustix::system",
    ];
    let sources = sources("src");
    assert!(sources.len() > 40);
    for (path, text) in sources {
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}, which macOS does not have", path.display());
        }
    }
}

#[test]
fn docker_spec_modules_use_no_io_or_engine() {
    let forbidden =
        ["std::fs", "std::env", "tokio", "rustix", "Timestamp::now", "bollard::Docker", "bytes::"];
    for name in ["spec.rs", "labels.rs", "command_line.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/docker").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn taskrun_modules_use_no_io_controller_or_backend() {
    let forbidden = [
        "std::fs",
        "std::process",
        "std::env",
        "tokio",
        "kube::Api",
        "kube::Client",
        "Timestamp::now",
        "crate::backend",
        "crate::controller",
    ];
    let sources = sources("src/taskrun");
    assert!(sources.len() > 7);
    for (path, text) in sources {
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn only_serve_command_uses_controller() {
    for (path, text) in sources("src") {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        let allowed = path.starts_with("src/controller") || path == Path::new("src/cli/serve.rs");
        assert!(allowed || !text.contains("crate::controller"), "{} uses the controller", path.display());
    }
}

#[test]
fn pure_controller_modules_use_no_io_or_clock() {
    let forbidden =
        ["std::fs", "std::process", "std::env", "tokio", "kube::Api", "kube::Client", "Timestamp::now"];
    for name in ["cluster_state.rs", "decide.rs", "objects.rs", "pod.rs", "queue.rs", "status.rs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}
