//! Asks the supervisor which kind of sandbox runs on this machine get.

use std::time::Duration;

use orchestrator_contract::outcome::{Sandbox, SandboxKind};
use orchestrator_contract::variables;

use crate::backend::local::launch::find_supervisor;
use crate::config::Config;
use crate::process;
use crate::task::check::{Check, CheckStatus};

const NAME: &str = "sandbox";

/// Maximum time of the supervisor, which makes a sandbox of each kind.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Checks that the supervisor can make a sandbox; names its kind and the way to a stronger one.
pub(super) async fn check(config: &Config) -> Check {
    let Ok(supervisor) = find_supervisor(config) else {
        return Check::failed(
            NAME,
            CheckStatus::Error,
            "not checked: there is no supervisor",
            "Fix the supervisor first.",
        );
    };
    let mut command = process::command(&supervisor);
    for (name, value) in config.environment.passed() {
        command.env(name, value);
    }
    if let Some(mode) = config.sandbox {
        command.env(variables::SANDBOX, mode.name());
    }
    command.args(["sandbox", "--json"]);
    let found = process::output_with_timeout(command, TIMEOUT).await;
    let parsed = found.and_then(|text| {
        serde_json::from_str::<Sandbox>(&text).map_err(|error| format!("unexpected answer: {error}"))
    });
    match parsed {
        Ok(sandbox) => judge(&sandbox),
        Err(error) => Check::failed(
            NAME,
            CheckStatus::Error,
            error,
            "Let this machine make a sandbox as described, use the docker backend, or pass `--sandbox off` for \
             code that you trust.",
        ),
    }
}

fn judge(sandbox: &Sandbox) -> Check {
    let mut message = sandbox.kind.name().to_owned();
    for remark in &sandbox.remarks {
        message.push_str("; ");
        message.push_str(remark);
    }
    match sandbox.kind {
        SandboxKind::Container | SandboxKind::Namespaces => Check::ok(NAME, message),
        SandboxKind::Landlock => Check::failed(
            NAME,
            CheckStatus::Warning,
            message,
            "It is the weakest sufficient sandbox. Allow user namespaces as described for the stronger kind.",
        ),
        SandboxKind::Off => Check::failed(
            NAME,
            CheckStatus::Warning,
            message,
            "Remove `sandbox` from the configuration, or set it to `required`.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaker_sandbox_warns_with_its_remarks() {
        let kinds = [
            (SandboxKind::Namespaces, CheckStatus::Ok),
            (SandboxKind::Landlock, CheckStatus::Warning),
            (SandboxKind::Off, CheckStatus::Warning),
        ];
        for (kind, status) in kinds {
            let check = judge(&Sandbox { kind, remarks: vec!["a remark".to_owned()] });
            assert_eq!(check.status, status);
            assert_eq!(check.message, format!("{}; a remark", kind.name()));
            assert_eq!(check.fix.is_some(), status != CheckStatus::Ok);
        }
    }
}
