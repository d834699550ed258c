//! doctor.

mod files;
mod servers;

use std::path::Path;
use std::time::Duration;

use orchestrator_contract::AgentName;

use super::Dispatcher;
use crate::backend::credentials::gh_auth_token;
use crate::backend::local::launch::{check_platform, find_supervisor};
use crate::config::BackendKind;
use crate::process;
pub use crate::task::check::{Check, CheckStatus};

/// How long a program may take to tell its version: the CLI needs a second on a busy machine.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

impl Dispatcher {
    /// Looks at everything that a run needs where runs run. Changes nothing.
    pub async fn doctor(&self) -> Vec<Check> {
        match self.config.backend {
            BackendKind::Local => self.check_this_machine().await,
            BackendKind::Docker => {
                // The image brings the programs along.
                let mut checks = vec![Check::ok("configuration", self.config.source_description())];
                checks.extend(files::named(&self.config));
                checks.extend(self.backend.check().await);
                checks.push(self.model_credential());
                checks.push(self.git_token().await);
                checks
            }
            BackendKind::Kubernetes => {
                // The cluster has the secrets as well.
                let mut checks = vec![Check::ok("configuration", self.config.source_description())];
                checks.extend(self.backend.check().await);
                checks
            }
        }
    }

    async fn check_this_machine(&self) -> Vec<Check> {
        let mut checks = vec![system(), Check::ok("configuration", self.config.source_description())];
        checks.extend(files::named(&self.config));
        checks.push(files::state_folder(&self.config.state_dir));
        checks.push(self.supervisor().await);
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
        process::output_with_timeout(command, VERSION_LIMIT).await
    }

    async fn supervisor(&self) -> Check {
        let name = "supervisor";
        let path = match find_supervisor(&self.config) {
            Ok(path) => path,
            Err(problem) => {
                return Check::failed(name, CheckStatus::Error, problem.message(), problem.hint());
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
                format!("{} does not tell its version: {error}", path.display()),
                "Install the supervisor of this dispatcher's release.",
            ),
        }
    }

    async fn claude(&self) -> Check {
        let name = "claude";
        let mend = "Install the Claude Code CLI (npm install -g @anthropic-ai/claude-code), or name it with --claude.";
        let path = self.config.claude.clone().or_else(|| self.find("claude"));
        let Some(path) = path else {
            return Check::failed(name, CheckStatus::Error, "there is no `claude` in PATH", mend);
        };
        match self.version(&path).await {
            Ok(version) => Check::ok(name, format!("{} ({version})", path.display())),
            Err(error) => Check::failed(
                name,
                CheckStatus::Error,
                format!("{} does not tell its version: {error}", path.display()),
                mend,
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
            Some(variable) => Check::ok(name, format!("{variable} is set")),
            None if self.config.secrets().secrets_dir.is_some() => {
                Check::ok(name, "none in the environment; the secrets folder may have it")
            }
            None => Check::failed(
                name,
                CheckStatus::Error,
                "there is none",
                "Set ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN (claude setup-token), or name a file with \
                 `anthropic_api_key_file` in [secrets].",
            ),
        }
    }

    async fn git_token(&self) -> Check {
        let name = "git token";
        let named = |agent: AgentName| Ok((self.config.agent(&agent)?.github_token_file, agent));
        let agent = match self.config.default_agent().and_then(named) {
            Ok((Some(path), _)) => return Check::ok(name, path.display().to_string()),
            Ok((None, agent)) => agent,
            Err(problem) => {
                return Check::failed(name, CheckStatus::Error, problem.message(), problem.hint());
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
                format!("there is none for {agent}: {error}"),
                format!(
                    "Name a file with `github_token_file` in [agents.{agent}], set GITHUB_TOKEN, or gh auth login."
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
                "there is no `ssh` in PATH: repositories are reached over https only",
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
            format!("not in PATH: {}; MCP servers that need it are left out", missing.join(", ")),
            "Install Node.js 22 or newer.",
        )
    }

    /// What rustup has installed; none if it is not there.
    async fn toolchains(&self) -> Option<String> {
        let mut command = process::command(&self.find("rustup")?);
        for (name, value) in self.config.environment.passed() {
            command.env(name, value);
        }
        command.args(["toolchain", "list"]);
        process::output_with_timeout(command, VERSION_LIMIT).await.ok()
    }
}

fn system() -> Check {
    let name = "system";
    match check_platform(std::env::consts::OS) {
        Ok(()) => Check::ok(name, format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)),
        Err(problem) => Check::failed(name, CheckStatus::Error, problem.message(), problem.hint()),
    }
}
