//! What is called pure stays pure: told from the sources.

use std::path::Path;

/// Files and folders below `src` that only decide.
const PURE: &[&str] = &[
    "run.rs",
    "run",
    "docs/account.rs",
    "docs/plan.rs",
    "docs/prompt.rs",
    "docs/review.rs",
    "agent/command_line.rs",
    "agent/end.rs",
    "agent/lines.rs",
    "agent/prompt.rs",
    "agent/story.rs",
    "agent/stream.rs",
    "publish/ladder.rs",
    "publish/patterns.rs",
    "publish/policy.rs",
    "publish/text.rs",
    "publish/text",
    "workspace/documents.rs",
    "workspace/documents",
    "workspace/working_directory.rs",
];

const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::process::",
    "std::env",
    "std::net",
    "tokio",
    "git2",
    "rustix",
    "Timestamp::now",
    "Instant::now",
    "SystemTime::now",
    "crate::context",
    "crate::event_loop",
    "crate::git",
];

#[test]
fn pure_modules_use_no_files_clocks_processes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for name in PURE {
        look(&source.join(name), &mut looked_at);
    }
    assert!(looked_at >= PURE.len(), "{looked_at}");
}

fn look(path: &Path, looked_at: &mut usize) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            look(&entry.expect("an entry").path(), looked_at);
        }
        return;
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Tests may read recordings.
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    for word in FORBIDDEN {
        assert!(!production.contains(word), "{} uses {word}", path.display());
    }
    *looked_at += 1;
}
