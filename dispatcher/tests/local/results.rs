//! What a lead does with the result of a run: look at its diff.

use crate::bench::Bench;

const PATCH: &str = "\
diff --git a/src/lib.rs b/src/lib.rs
--- a/src/lib.rs
+++ b/src/lib.rs
@@ -1 +1,2 @@
 fn old() {}
+fn new() {} // \u{1b}[2J
";

#[test]
fn diff_of_run_is_printed_with_statistics() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let none = bench.run("diff");
    assert!(none.code == 64 && none.stderr.contains("has no diff"), "{none:?}");
    let record = bench.path("state/workspaces/workspace-trader/.orchestrator/runs").join(&run);
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("diff.patch"), PATCH).unwrap();
    let diff = bench.run("diff");
    assert_eq!(diff.stdout, PATCH.replace('\u{1b}', "\u{fffd}"));
    assert_eq!(diff.stderr, format!("diff of {run}: 1 file changed (+1 -0)\n"));
    let stat = bench.run(&format!("diff {run} --stat"));
    assert!(stat.stdout.contains("+1     -0  src/lib.rs\n"), "{stat:?}");
    let json = bench.run("diff --path src/ -o json").json();
    assert_eq!((json["run"].as_str(), json["files"][0]["added"].as_u64()), (Some(&*run), Some(1)));
    assert_eq!(bench.run("diff --path tests/").stdout, "");
}
