//! `dispatcher doctor`.

use orchestrator_contract::Reason;
use serde_json::json;

use super::context::CliContext;
use crate::error::Error;
use crate::operations::{Check, CheckStatus};

/// Check the requirements for runs and suggest fixes
///
/// Changes nothing. Exits with 78 if a check would make every run fail; warnings affect some runs
/// only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher doctor
  dispatcher doctor -o json")]
pub(super) struct Arguments {}

pub(super) async fn run(context: &CliContext, Arguments {}: Arguments) -> Result<u8, Error> {
    let checks = context.dispatcher.doctor().await;
    let ok = !checks.iter().any(|check| check.status == CheckStatus::Error);
    context.output.result(&json!({ "ok": ok, "checks": checks }), || render(&checks))?;
    Ok(if ok { 0 } else { Reason::InvalidConfiguration.exit_code() })
}

fn render(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let word = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Warning => "warning",
            CheckStatus::Error => "error",
        };
        let fix = check.fix.as_ref().map_or(String::new(), |fix| format!("{:26}{fix}\n", ""));
        format!("{word:<8} {:<16} {}\n{fix}", check.name, check.message)
    };
    checks.iter().map(line).collect()
}
