//! doctor.

use orchestrator_contract::Reason;
use serde_json::json;

use super::CliContext;
use crate::error::Error;
use crate::operations::{Check, CheckStatus};

/// Checks everything that a run on this machine needs, and says how to mend it.
///
/// Changes nothing. The exit code is 78 if a run would fail over what was found;
/// warnings are about what some runs would miss.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  dispatcher doctor
  dispatcher doctor -o json")]
pub(super) struct Arguments {}

pub(super) async fn run(session: &CliContext, Arguments {}: Arguments) -> Result<u8, Error> {
    let checks = session.dispatcher.doctor().await;
    let well = !checks.iter().any(|check| check.status == CheckStatus::Error);
    session.output.result(&json!({ "ok": well, "checks": checks }), || render(&checks))?;
    Ok(if well { 0 } else { Reason::InvalidConfiguration.exit_code() })
}

fn render(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let word = match check.status {
            CheckStatus::Ok => "ok",
            CheckStatus::Warning => "warning",
            CheckStatus::Error => "problem",
        };
        let mend = check.fix.as_ref().map_or(String::new(), |mend| format!("{:26}{mend}\n", ""));
        format!("{word:<8} {:<16} {}\n{mend}", check.name, check.message)
    };
    checks.iter().map(line).collect()
}
