//! The `doctor` command: checks the requirements of runs.

mod files;
mod sandbox;
mod servers;

use std::path::Path;
use std::time::Duration;

use orchestrator_contract::AgentName;

use super::dispatcher::Dispatcher;
use crate::backend::credentials::gh_auth_token;
use crate::backend::local::launch::{check_platform, find_supervisor};
use crate::config::{BackendKind, SandboxMode};
use crate::process;
use crate::task::check::{Check, CheckStatus};

/// Maximum time for `--version`: the Claude Code CLI needs a second on a busy machine.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

impl Dispatcher {
    /// Checks the requirements of the configured backend; changes nothing.
    pub async fn doctor(&self) -> Vec<Check> {
        match self.config.backend {
            BackendKind::Local => self.check_this_machine().await,
            BackendKind::Docker => {
                // The image contains the programs.
                let mut checks = vec![Check::ok("configuration", self.config.source_description())];
                checks.extend(files::configured(&self.config));
                checks.extend(self.backend.check().await);
                checks.push(self.model_credential());
                checks.push(self.git_token().await);
                checks
            }
            BackendKind::Kubernetes => {
                // The cluster contains the secrets too.
                let mut checks = vec![Check::ok("configuration", self.config.source_description())];
                checks.extend(self.backend.check().await);
                checks
            }
        }
    }

    async fn check_this_machine(&self) -> Vec<Check> {
        let mut checks = vec![system(), Check::ok("configuration", self.config.source_description())];
        checks.extend(files::configured(&self.config));
        checks.push(files::state_directory(&self.config.state_dir));
        checks.push(self.supervisor().await);
        checks.push(sandbox::check(&self.config).await);
        checks.push(self.claude().await);
        checks.push(self.model_credential());
        checks.push(self.git_token().await);
        checks.push(self.ssh());
        checks.push(self.node());
        checks.extend(servers::check(&self.config, self.toolchains().await.as_deref()));
        checks
    }

    async fn version(&self, program: &Path) -> Result<String, String> {
        let mut command = process::command(program);
        for (name, value) in self.config.environment.passed() {
            command.env(name, value);
        }
        command.arg("--version");
        process::output_with_timeout(command, VERSION_TIMEOUT).await
    }

    async fn supervisor(&self) -> Check {
        let name = "supervisor";
        let path = match find_supervisor(&self.config) {
            Ok(path) => path,
            Err(error) => {
                return Check::failed(name, CheckStatus::Error, error.message(), error.hint());
            }
        };
        let ours = env!("CARGO_PKG_VERSION");
        match self.version(&path).await {
            Ok(version) if version.split_whitespace().any(|word| word == ours) => {
                Check::ok(name, format!("{} ({version})", path.display()))
            }
            Ok(version) => Check::failed(
                name,
                CheckStatus::Warning,
                format!("{} is {version}, this dispatcher is {ours}", path.display()),
                "Install both from the same release.",
            ),
            Err(error) => Check::failed(
                name,
                CheckStatus::Error,
                format!("{} --version failed: {error}", path.display()),
                "Install the supervisor of this dispatcher's release.",
            ),
        }
    }

    async fn claude(&self) -> Check {
        let name = "claude";
        let fix = "Install the Claude Code CLI (npm install -g @anthropic-ai/claude-code), or set its path with --claude.";
        let path = self.config.claude.clone().or_else(|| self.find("claude"));
        let Some(path) = path else {
            return Check::failed(name, CheckStatus::Error, "`claude` not found in PATH", fix);
        };
        match self.version(&path).await {
            Ok(version) => Check::ok(name, format!("{} ({version})", path.display())),
            Err(error) => Check::failed(
                name,
                CheckStatus::Error,
                format!("{} --version failed: {error}", path.display()),
                fix,
            ),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.config.environment.os(name).is_some()
    }

    fn find(&self, program: &str) -> Option<std::path::PathBuf> {
        process::find(program, self.config.environment.os("PATH"))
    }

    fn model_credential(&self) -> Check {
        let name = "model credential";
        if let Some(path) = &self.config.secrets().anthropic_api_key_file {
            return Check::ok(name, path.display().to_string());
        }
        let variables = [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
        ];
        match variables.iter().find(|variable| self.has(variable)) {
            Some(variable)
                if variable.starts_with("CLAUDE_CODE_USE_")
                    && self.config.sandbox.unwrap_or(SandboxMode::Required) == SandboxMode::Required =>
            {
                Check::failed(
                    name,
                    CheckStatus::Error,
                    format!(
                        "{variable} is set: its requests do not pass the gateway, which a required sandbox needs"
                    ),
                    "Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN, or pass `--sandbox best-effort`: then the \
                     agent can read the cloud credential, and the cost limit relies on the figures of the CLI.",
                )
            }
            Some(variable) => Check::ok(name, format!("{variable} is set")),
            None if self.config.secrets().secrets_dir.is_some() => {
                Check::ok(name, "not set in the environment; expected in the secrets directory")
            }
            None => Check::failed(
                name,
                CheckStatus::Error,
                "not set",
                "Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN (claude setup-token), or \
                 `anthropic_api_key_file` in [secrets].",
            ),
        }
    }

    async fn git_token(&self) -> Check {
        let name = "git token";
        let with_token_file = |agent: AgentName| Ok((self.config.agent(&agent)?.github_token_file, agent));
        let agent = match self.config.default_agent().and_then(with_token_file) {
            Ok((Some(path), _)) => return Check::ok(name, path.display().to_string()),
            Ok((None, agent)) => agent,
            Err(error) => {
                return Check::failed(name, CheckStatus::Error, error.message(), error.hint());
            }
        };
        if let Some(variable) = ["GITHUB_TOKEN", "GH_TOKEN"].iter().find(|variable| self.has(variable)) {
            return Check::ok(name, format!("{variable} is set"));
        }
        match gh_auth_token(&self.config).await {
            Ok(_) => Check::ok(name, "`gh` is logged in"),
            Err(error) => Check::failed(
                name,
                CheckStatus::Warning,
                format!("not set for {agent}: {error}"),
                format!(
                    "Set GITHUB_TOKEN or `github_token_file` in [agents.{agent}], or run `gh auth login`."
                ),
            ),
        }
    }

    fn ssh(&self) -> Check {
        match self.find("ssh") {
            Some(path) => Check::ok("ssh", path.display().to_string()),
            None => Check::failed(
                "ssh",
                CheckStatus::Warning,
                "`ssh` not found in PATH: repositories are reachable over https only",
                "Install the OpenSSH client.",
            ),
        }
    }

    fn node(&self) -> Check {
        let missing: Vec<&str> =
            ["node", "npx"].into_iter().filter(|program| self.find(program).is_none()).collect();
        if missing.is_empty() {
            return Check::ok("node", "node and npx are in PATH");
        }
        Check::failed(
            "node",
            CheckStatus::Warning,
            format!("not found in PATH: {}; MCP servers that need it are skipped", missing.join(", ")),
            "Install Node.js 22 or newer.",
        )
    }

    /// Returns the output of `rustup toolchain list`; `None` without rustup.
    async fn toolchains(&self) -> Option<String> {
        let mut command = process::command(&self.find("rustup")?);
        for (name, value) in self.config.environment.passed() {
            command.env(name, value);
        }
        command.args(["toolchain", "list"]);
        process::output_with_timeout(command, VERSION_TIMEOUT).await.ok()
    }
}

fn system() -> Check {
    let name = "system";
    match check_platform(std::env::consts::OS) {
        Ok(()) => Check::ok(name, format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)),
        Err(error) => Check::failed(name, CheckStatus::Error, error.message(), error.hint()),
    }
}
