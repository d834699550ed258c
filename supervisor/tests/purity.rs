//! Checks in the sources that pure modules stay pure.

use std::path::Path;

/// Pure files and directories below `src`.
const PURE: &[&str] = &[
    "run.rs",
    "run",
    "docs/usage.rs",
    "docs/plan.rs",
    "docs/prompt.rs",
    "docs/review.rs",
    "agent/command_line.rs",
    "agent/exit.rs",
    "agent/lines.rs",
    "agent/prompt.rs",
    "agent/prompt_block.rs",
    "agent/log_lines.rs",
    "agent/stream.rs",
    "publish/fallback.rs",
    "publish/patterns.rs",
    "publish/policy.rs",
    "publish/text.rs",
    "publish/unsaved.rs",
    "publish/text",
    "workspace/documents.rs",
    "workspace/documents",
    "workspace/instructions",
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
    let mut checked = 0;
    for name in PURE {
        check(&source.join(name), &mut checked);
    }
    assert!(checked >= PURE.len(), "{checked}");
}

fn check(path: &Path, checked: &mut usize) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("cannot read directory") {
            check(&entry.expect("cannot read directory entry").path(), checked);
        }
        return;
    }
    if path.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Tests may read fixtures.
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    for word in FORBIDDEN {
        assert!(!production.contains(word), "{} uses {word}", path.display());
    }
    *checked += 1;
}
