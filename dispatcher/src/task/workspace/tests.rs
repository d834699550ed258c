use super::*;
use crate::task::event_fold::LockState;
use crate::task::status::tests::sample;

fn found() -> FoundWorkspace {
    FoundWorkspace {
        service: ServiceName::new("trader").unwrap(),
        size: WorkspaceSize::Used { bytes: 3 << 29, is_lower_bound: false },
        last_used: None,
        unpushed: Vec::new(),
        data: Vec::new(),
    }
}

/// A finished run with work at a location, or a lost one.
fn ended(name: &str, mode: Mode, location: Option<WorkLocation>) -> WorkspaceRun {
    let mut status = sample(if location.is_some() { 5 } else { 3 }, LockState::Free);
    status.run = RunName::new(name).unwrap();
    if let (Some(work), Some(location)) = (&mut status.work, location) {
        work.location = location;
    }
    WorkspaceRun { status, mode }
}

fn active() -> WorkspaceRun {
    WorkspaceRun { status: sample(3, LockState::Held), mode: Mode::First }
}

#[test]
fn workspace_with_run_or_unpushed_work_is_kept_unless_named() {
    use WorkLocation::{Remote, Workspace};
    use WorkspaceAction::{KeepActive, KeepUnpushed, Remove};
    let pushed = |mode| ended("r2", mode, Some(Remote));
    let unpushed = || ended("r1", Mode::First, Some(Workspace));
    let cases: Vec<(Vec<WorkspaceRun>, &[&str], WorkspaceAction, WorkspaceAction)> = vec![
        (vec![], &[], Remove, Remove),
        (vec![pushed(Mode::First)], &[], Remove, Remove),
        (vec![unpushed()], &[], KeepUnpushed, Remove),
        (vec![pushed(Mode::Retry), unpushed()], &[], Remove, Remove),
        // A fresh start has a branch of its own.
        (vec![pushed(Mode::Fresh), unpushed()], &[], KeepUnpushed, Remove),
        (vec![ended("lost", Mode::First, None)], &[], KeepUnpushed, Remove),
        (vec![active()], &[], KeepActive, KeepActive),
        (vec![active(), unpushed()], &[], KeepActive, KeepActive),
        (vec![], &["changes in target-repo"], KeepUnpushed, Remove),
    ];
    for (runs, in_workspace, expected, named) in cases {
        let plan = |is_named| {
            let mut found = found();
            found.unpushed = in_workspace.iter().map(|&text| text.to_owned()).collect();
            WorkspacePlan::new(found, "/w".to_owned(), &runs, is_named)
        };
        assert_eq!((plan(false).action, plan(true).action), (expected, named), "{runs:?}");
    }
}

#[test]
fn plan_says_size_age_and_losses() {
    let mut found = found();
    found.unpushed = vec!["changes of r1 in target-repo".to_owned()];
    found.data = vec!["memory of MCP servers (12 KiB)".to_owned()];
    let runs = [ended("r1", Mode::First, Some(WorkLocation::Workspace))];
    let finished = runs[0].status.finished_at.unwrap();
    let plan = WorkspacePlan::new(found, "/state/workspaces/workspace-trader".to_owned(), &runs, false);
    let now = finished.checked_add(jiff::SignedDuration::from_hours(76)).unwrap();
    insta::assert_snapshot!(plan.render(now), @r"
    trader: /state/workspaces/workspace-trader
      size: 1.5 GiB, last used 3d4h ago
      unpushed: work of r1
      unpushed: changes of r1 in target-repo
      lost: memory of MCP servers (12 KiB)
      lost: transcript and diff of 1 run
      kept: it has unpushed work; `--service trader` includes it
    ");
}

#[test]
fn sizes_have_unit_and_bound() {
    let text = |bytes, is_lower_bound| WorkspaceSize::Used { bytes, is_lower_bound }.describe();
    assert_eq!(text(0, false), "0 KiB");
    assert_eq!(text(2048, false), "2 KiB");
    assert_eq!(text(5 << 20, true), "more than 5.0 MiB");
    assert_eq!(text(u64::MAX, false), "16777216.0 TiB");
    assert_eq!(WorkspaceSize::Capacity("20Gi".to_owned()).describe(), "volume of 20Gi");
    assert_eq!(WorkspaceSize::Unknown.describe(), "unknown");
}
