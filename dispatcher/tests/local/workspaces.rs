//! Removal of workspaces.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::bench::{Bench, CommandOutput};

const RUN: &str = "trader-claude-agent-1-task1-attempt1";

fn workspace(bench: &Bench) -> PathBuf {
    bench.path("state/workspaces/workspace-trader")
}

/// Fills the workspace as a run leaves it.
fn fill(bench: &Bench, status: &str) {
    let root = workspace(bench);
    for folder in ["target-repo/src", ".orchestrator/runs", ".orchestrator/kept/memory"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("target-repo/src/lib.rs"), "work").unwrap();
    std::fs::write(root.join(".orchestrator/kept/memory/memory.json"), "{}").unwrap();
    let state = json!({"version": 1, "run": RUN, "status": status, "branch": "b", "start": "", "base": ""});
    std::fs::write(root.join(".orchestrator/state.json"), state.to_string()).unwrap();
}

fn only(done: &CommandOutput) -> Value {
    assert_eq!(done.code, 0, "{done:?}");
    let plans = done.json()["workspaces"].as_array().unwrap().clone();
    assert_eq!(plans.len(), 1, "{plans:?}");
    plans[0].clone()
}

#[test]
fn workspace_is_listed_first_and_removed_with_yes() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    fill(&bench, "clean");
    let shown = bench.run("gc --workspaces");
    let words = [
        "trader: ",
        "  size: ",
        ", last used ",
        "lost: data of MCP server `memory` (",
        "lost: transcript and diff of 1 run",
        "would be removed",
        "nothing was removed; `dispatcher gc --workspaces --yes` removes 1 workspace (",
    ];
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(words.iter().all(|word| shown.stdout.contains(word)), "{}", shown.stdout);
    let plan = only(&bench.run("gc --workspaces -o json"));
    assert_eq!((&plan["action"], &plan["unpushed"]), (&json!("remove"), &json!([])));
    assert!(plan["bytes"].as_u64().unwrap() > 0, "{plan}");
    assert!(workspace(&bench).join("target-repo/src/lib.rs").exists(), "it was only listed");

    assert_eq!(only(&bench.run("gc --workspaces --yes -o json"))["action"], "removed");
    assert!(!workspace(&bench).join("target-repo").exists());
    assert!(!workspace(&bench).join(".orchestrator/state.json").exists());
    assert_eq!(bench.run("gc --workspaces -o json").json()["workspaces"], json!([]));
    assert_eq!(bench.run("gc --workspaces --yes").stdout, "removed 0 workspaces\n");
    // Its records stay, and its attempt numbers even without them.
    assert_eq!(bench.runs().len(), 1);
    assert_eq!(bench.run("gc --keep 0").code, 0);
    assert!(bench.runs().is_empty());
    assert_eq!(bench.submit("done"), "trader-claude-agent-1-task1-attempt2");
}

#[test]
fn workspace_of_active_run_is_never_removed() {
    let bench = Bench::new();
    let run = bench.submit("held");
    fill(&bench, "dirty");
    for arguments in ["gc --workspaces --yes -o json", "gc --workspaces --service trader --yes -o json"] {
        let plan = only(&bench.run(arguments));
        assert_eq!((&plan["action"], &plan["active_run"]), (&json!("keep_active"), &json!(run)));
    }
    assert!(workspace(&bench).join("target-repo/src/lib.rs").exists());
    bench.release(&run);
    bench.run(&format!("wait {run}"));
    // A supervisor that no record names holds this lock.
    fill(&bench, "clean");
    let lock = std::fs::File::create(workspace(&bench).join(".orchestrator/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(only(&bench.run("gc --workspaces --yes -o json"))["action"], "keep_active");
    drop(lock);
    assert_eq!(only(&bench.run("gc --workspaces --yes -o json"))["action"], "removed");
}

#[test]
fn workspace_with_unpushed_work_is_removed_by_name_only() {
    let bench = Bench::new();
    let mut unpushed = bench.command("submit --task 1 --service trader --wait");
    unpushed.env("ORCHESTRATOR_TEST_WORK", "workspace").output().unwrap();
    fill(&bench, "partly_saved");
    let rescue = workspace(&bench).join(".orchestrator/runs").join(RUN).join("rescue");
    std::fs::create_dir_all(&rescue).unwrap();
    std::fs::write(rescue.join("work.bundle"), "").unwrap();
    std::fs::create_dir_all(workspace(&bench).join(".orchestrator/aside/old")).unwrap();
    let plan = only(&bench.run("gc --workspaces --yes -o json"));
    let expected = json!([
        format!("work of {RUN}"),
        format!("changes of {RUN} in `target-repo`"),
        format!("files in `rescue` of {RUN}"),
        "worktree `aside/old`, which could not be saved",
    ]);
    assert_eq!((&plan["action"], &plan["unpushed"]), (&json!("keep_unpushed"), &expected));
    let shown = bench.run("gc --workspaces --service trader").stdout;
    assert!(shown.contains("`dispatcher gc --workspaces --service trader --yes`"), "{shown}");
    assert!(workspace(&bench).join("target-repo/src/lib.rs").exists());
    assert_eq!(only(&bench.run("gc --workspaces --service trader --yes -o json"))["action"], "removed");
    assert!(!workspace(&bench).join("target-repo").exists());
    let missing = bench.run("gc --workspaces --service billing --yes");
    assert_eq!(missing.code, 64, "{missing:?}");
    assert!(missing.stderr.contains("service billing has no workspace"), "{missing:?}");
}

#[test]
fn worktree_without_valid_record_counts_as_unpushed_work() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    fill(&bench, "clean");
    let record = workspace(&bench).join(".orchestrator/state.json");
    let damages: [&dyn Fn(); 3] = [
        &|| std::fs::write(&record, "{").unwrap(),
        &|| std::fs::write(&record, r#"{"version": 1, "status": "of a later version"}"#).unwrap(),
        &|| std::fs::remove_file(&record).unwrap(),
    ];
    for damage in damages {
        damage();
        let plan = only(&bench.run("gc --workspaces --yes -o json"));
        assert_eq!(plan["action"], "keep_unpushed");
        let expected = "possibly changes in `target-repo`, whose record is missing or damaged";
        assert_eq!(plan["unpushed"], json!([expected]));
    }
}

#[test]
fn removal_follows_no_link_and_enters_closed_folders() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    fill(&bench, "clean");
    let (precious, tree) = (bench.path("precious"), workspace(&bench).join("target-repo"));
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), vec![1; 1 << 20]).unwrap();
    symlink(&precious, tree.join("link")).unwrap();
    symlink(&precious, workspace(&bench).join("agent")).unwrap();
    for closed in ["src", ""] {
        std::fs::set_permissions(tree.join(closed), std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    let size = only(&bench.run("gc --workspaces -o json"))["bytes"].as_u64().unwrap();
    assert!(size < 1 << 20, "a link was followed: {size}");
    assert_eq!(only(&bench.run("gc --workspaces --yes -o json"))["action"], "removed");
    assert!(tree.symlink_metadata().is_err() && precious.join("file").exists());
}

#[test]
fn interrupted_removal_of_workspace_is_finished_by_next_gc() {
    let bench = Bench::new();
    bench.submit_and_wait("failed");
    let left = bench.path("state/workspaces/.removed-workspace-trader");
    for gc in ["gc", "gc --workspaces --yes"] {
        std::fs::create_dir_all(left.join("target-repo/src")).unwrap();
        assert_eq!(bench.run(gc).code, 0);
        assert!(!left.exists(), "{gc}");
    }
    // Only listed: nothing is changed.
    std::fs::create_dir_all(&left).unwrap();
    bench.run("gc --workspaces");
    assert!(left.exists());
}

#[test]
fn workspace_options_belong_together() {
    let bench = Bench::new();
    for arguments in
        ["gc --yes", "gc --service trader", "gc --workspaces --keep 3", "gc --workspaces --dry-run --yes"]
    {
        assert_eq!(bench.run(arguments).code, 64, "{arguments}");
    }
    assert_eq!(bench.run("gc --workspaces --dry-run").stdout, "nothing to remove\n");
}
