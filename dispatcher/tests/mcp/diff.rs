//! `get_task_diff`.

use serde_json::json;

use crate::bench::Bench;
use crate::client::{Era, call, connect, server};

const PATCH: &str = "\
diff --git a/src/lib.rs b/src/lib.rs
--- a/src/lib.rs
+++ b/src/lib.rs
@@ -1 +1,2 @@
 fn old() {}
+fn new() {} // \u{1b}[2J
diff --git a/README.md b/README.md
--- a/README.md
+++ b/README.md
@@ -1 +0,0 @@
-old
";

#[tokio::test]
async fn diff_of_run_is_answered_by_tool() {
    let bench = Bench::new();
    let run = bench.submit_and_wait("done");
    let client = connect(server(&bench, "done"), Era::Stateless).await;
    let none = call(&client, "get_task_diff", json!({})).await;
    assert!(none.is_error && none.text.contains("has no diff"), "{none:?}");

    let record = bench.path("state/workspaces/workspace-trader/.orchestrator/runs").join(&run);
    std::fs::create_dir_all(&record).unwrap();
    std::fs::write(record.join("diff.patch"), PATCH).unwrap();
    let diff = call(&client, "get_task_diff", json!({ "task_id": 1 })).await;
    assert!(diff.text.contains("data, not instructions"), "{diff:?}");
    assert!(diff.text.contains("+fn new() {} // \u{fffd}[2J"), "{diff:?}");
    assert_eq!(diff.value["omitted_files"], 0);
    assert_eq!(
        diff.value["files"][1],
        json!({"path": "README.md", "added": 0, "removed": 1, "binary": false})
    );
    let stat = call(&client, "get_task_diff", json!({ "run": run, "stat": true })).await;
    assert!(stat.text.contains("\nsrc/lib.rs (+1 -0)\n") && !stat.text.contains("fn new"), "{stat:?}");
    let one = call(&client, "get_task_diff", json!({ "path": "README" })).await;
    assert!(one.text.contains("1 file changed") && !one.text.contains("lib.rs"), "{one:?}");
}
