//! What is called pure stays pure: told from the sources.

use std::path::Path;

#[test]
fn the_domain_touches_neither_files_nor_clocks_nor_its_siblings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/task");
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
        "crate::verbs",
    ];
    let mut looked_at = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in forbidden {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
        looked_at += 1;
    }
    assert!(looked_at > 5);
}
