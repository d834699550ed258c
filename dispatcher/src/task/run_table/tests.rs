use orchestrator_contract::{Reason, RunName};

use super::*;
use crate::task::event_fold::LockState;
use crate::task::status::tests::sample;

fn now() -> Timestamp {
    "2026-11-22T12:06:00Z".parse().unwrap()
}

/// A succeeded, an active, a failed retry with a pull request and a queued run.
fn runs() -> Vec<Status> {
    let mut failed = sample(5, LockState::Free);
    failed.run = RunName::new("trader-claude-agent-1-task1-attempt3").unwrap();
    failed.phase = Phase::Failed;
    failed.reason = Some(Reason::VerificationFailed);
    failed.message =
        Some("`cargo test --workspace` failed with exit code 101 in the fresh sandbox".to_owned());
    let mut queued = sample(3, LockState::Held);
    queued.run = RunName::new("auth-claude-agent-2-task12-attempt1").unwrap();
    queued.service = ServiceName::new("auth").unwrap();
    queued.task_id = "12".parse().ok();
    queued.phase = Phase::Pending;
    queued.waiting_for = Some("auth-claude-agent-2-task11-attempt1".to_owned());
    vec![queued, failed, sample(3, LockState::Held), sample(5, LockState::Free)]
}

fn damaged() -> DamagedRun {
    DamagedRun {
        run: "auth-claude-agent-1-task1-attempt1".to_owned(),
        problem: "damaged record of run auth-claude-agent-1-task1-attempt1: EOF at line 1".to_owned(),
    }
}

fn table(width: Option<usize>, color: ColorChoice) -> String {
    render_table(&runs(), &[damaged()], now(), TableStyle { width, color })
}

#[test]
fn run_table_fits_60_columns() {
    insta::assert_snapshot!(table(Some(60), ColorChoice::No));
}

#[test]
fn run_table_fits_80_columns() {
    insta::assert_snapshot!(table(Some(80), ColorChoice::No));
}

#[test]
fn run_table_fits_120_columns() {
    insta::assert_snapshot!(table(Some(120), ColorChoice::No));
}

#[test]
fn run_table_of_wide_terminal_has_one_line_per_run() {
    insta::assert_snapshot!(table(Some(160), ColorChoice::No));
}

#[test]
fn run_table_in_file_has_one_full_line_per_run() {
    insta::assert_snapshot!(table(None, ColorChoice::No));
}

#[test]
fn run_table_colors_header_and_phases_only() {
    for width in [60, 160] {
        let colored = table(Some(width), ColorChoice::Yes);
        insta::assert_snapshot!(
            format!("run_table_in_color_at_{width}_columns"),
            colored.replace('\u{1b}', "ESC")
        );
        let plain = console::strip_ansi_codes(&colored).replace("  \n", "\n");
        assert_eq!(plain, table(Some(width), ColorChoice::No));
    }
}

#[test]
fn run_table_fits_any_width_without_cut_names() {
    let mut runs = runs();
    runs[1].run = RunName::new("a-service-with-a-very-long-name-claude-agent-10-task10-attempt1").unwrap();
    runs[2].activity = Some("édite 日本語のファイル, puis 注文帳を追加する".repeat(3));
    for width in 60..200 {
        let table = render_table(
            &runs,
            &[damaged()],
            now(),
            TableStyle { width: Some(width), color: ColorChoice::No },
        );
        for line in table.lines() {
            assert!(width_of(line) <= width, "{width}: {line}");
        }
        let joined = table.replace('\n', "");
        for status in &runs {
            assert!(joined.contains(status.run.as_str()), "{width}: {table}");
        }
    }
}

#[test]
fn title_of_active_run_is_that_of_earlier_attempt() {
    let runs = [sample(3, LockState::Held), sample(5, LockState::Free)];
    assert_eq!(runs[0].task_title, None);
    let style = TableStyle { width: None, color: ColorChoice::No };
    let table = render_table(&runs, &[], now(), style);
    assert!(table.lines().nth(1).unwrap().contains("Add the order book  edits src/lib.rs"), "{table}");
}
