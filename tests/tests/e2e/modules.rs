//! Every file of this directory is compiled: cargo ignores a file without a `mod` line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Returns the names of the modules that a file declares with `mod NAME;`.
fn declared(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines()
        .filter_map(|line| Some(line.trim().strip_prefix("mod ")?.strip_suffix(';')?.to_owned()))
        .collect()
}

/// Asserts that `file` declares exactly the modules in `directory`, recursively.
fn assert_declared(file: &Path, directory: &Path) {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a directory entry").path();
        if path == file {
            continue;
        }
        let name = path.file_stem().expect("a file name").to_str().expect("UTF-8").to_owned();
        if path.is_dir() {
            assert_declared(&path.with_extension("rs"), &path);
        } else {
            assert_eq!(path.extension().and_then(|extension| extension.to_str()), Some("rs"), "{path:?}");
        }
        found.insert(name);
    }
    assert_eq!(found, declared(file), "{} and {}", directory.display(), file.display());
}

#[test]
fn every_file_is_declared_as_module() {
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut entries: Vec<_> =
        fs::read_dir(&suites).expect("tests/").map(|entry| entry.unwrap().file_name()).collect();
    entries.sort();
    assert_eq!(entries, ["e2e", "hostile"], "suites outside of the common binaries");
    for suite in ["e2e", "hostile"] {
        assert_declared(&suites.join(suite).join("main.rs"), &suites.join(suite));
    }
}
