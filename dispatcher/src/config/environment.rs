//! The process environment, read once, and the variables passed to supervisors.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use orchestrator_contract::variables;

use super::file::{AgentSettings, FileSettings};
use crate::error::Error;
use crate::task::address;
use crate::task::image::ImageReference;

/// Variables passed to a supervisor; a trailing `*` matches any suffix.
///
/// All others are dropped: a shell's environment holds secrets that a run must not receive.
const ENV_ALLOWLIST: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "RUSTUP_HOME",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GITHUB_API_URL",
    "BRAVE_API_KEY",
    "ANTHROPIC_*",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "ORCHESTRATOR_*",
];

/// Cloud credentials, passed only if the model runs on Bedrock or Vertex.
const CLOUD_ENV_ALLOWLIST: &[&str] = &["AWS_*", "GOOGLE_*", "CLOUD_ML_REGION"];

/// Allowlisted variables that are not secret and may show up in `docker inspect`.
const NON_SECRET_VARS: &[&str] = &[
    "TZ",
    "NO_PROXY",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "GITHUB_API_URL",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_VERTEX_PROJECT_ID",
    "API_TIMEOUT_MS",
    "MAX_THINKING_TOKENS",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
    "CLAUDE_CODE_MAX_RETRIES",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLOUD_ML_REGION",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    variables::GIT_HOSTS,
    variables::AGENT_GRACE_SECONDS,
    variables::PUBLISH_TIMEOUT_SECONDS,
    variables::SANDBOX,
];

/// Variables that only make sense on the host; the image has its own.
const HOST_ONLY_VARS: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_PROFILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// How a container receives a variable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EnvDelivery {
    /// As an environment variable, visible in `docker inspect`.
    Plain,
    /// As a secret file.
    SecretFile,
}

/// Prefix of the MCP server's variables, not passed either: one of them is its token.
const SERVE_VAR_PREFIX: &str = "ORCHESTRATOR_SERVE_";

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    pub fn from_process() -> Self {
        std::env::vars_os().collect()
    }

    /// Returns a variable; an empty one counts as unset.
    #[must_use]
    pub fn os(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Returns a variable if it is valid UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.os(name)?.to_str()
    }

    /// Returns a variable that holds an absolute path; relative paths are ignored (XDG Base Directory).
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.os(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// Returns the folder of the user's configuration files.
    #[must_use]
    pub fn user_config_folder(&self) -> Option<PathBuf> {
        let home = || self.path("HOME").map(|home| home.join(".config"));
        Some(self.path("XDG_CONFIG_HOME").or_else(home)?.join("orchestrator"))
    }

    /// Returns the default state folder.
    #[must_use]
    pub fn default_state_dir(&self) -> Option<PathBuf> {
        let home = || self.path("HOME").map(|home| home.join(".local/state"));
        Some(self.path("XDG_STATE_HOME").or_else(home)?.join("orchestrator"))
    }

    /// Returns the variables to pass to a supervisor, see [`ENV_ALLOWLIST`].
    pub fn passed(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let cloud =
            ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"].iter().any(|name| self.os(name).is_some());
        let cloud = if cloud { CLOUD_ENV_ALLOWLIST } else { &[] };
        let passes = move |name: &OsStr| {
            let Some(name) = name.to_str() else { return false };
            let passed = |pattern: &&str| match pattern.strip_suffix('*') {
                Some(head) => name.starts_with(head),
                None => name == *pattern,
            };
            let excluded = variables::TASK.contains(&name) || name.starts_with(SERVE_VAR_PREFIX);
            let all = [ENV_ALLOWLIST, variables::MACHINE, variables::MODEL_SETTINGS, cloud];
            !excluded && all.into_iter().flatten().any(passed)
        };
        self.0
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
            .filter(move |(name, _)| passes(name))
    }

    /// Returns the variables to pass to a supervisor in a container, and how.
    ///
    /// A variable is a secret unless it is known not to be; so is a URL with a password.
    pub fn container_vars(&self) -> impl Iterator<Item = (&str, &str, EnvDelivery)> {
        self.passed().filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            let is_plain = NON_SECRET_VARS.contains(&name);
            let host_only =
                HOST_ONLY_VARS.contains(&name) || (name.starts_with("ORCHESTRATOR_") && !is_plain);
            let delivery =
                if is_plain && !value.contains('@') { EnvDelivery::Plain } else { EnvDelivery::SecretFile };
            (!host_only && !value.is_empty()).then_some((name, value, delivery))
        })
    }

    /// Overrides settings with `ORCHESTRATOR_*` variables.
    pub(super) fn overlay(&self, settings: &mut FileSettings) -> Result<(), Error> {
        let path = |name: &str, slot: &mut Option<PathBuf>| self.file(name, slot);
        self.name("ORCHESTRATOR_BACKEND", &mut settings.backend)?;
        self.name("ORCHESTRATOR_DOCKER_HOST", &mut settings.docker.host)?;
        if let Some(value) = self.text("ORCHESTRATOR_DOCKER_IMAGE") {
            let invalid = |error| Error::configuration(format!("invalid ORCHESTRATOR_DOCKER_IMAGE: {error}"));
            settings.docker.image = Some(ImageReference::new(value).map_err(invalid)?);
        }
        path("ORCHESTRATOR_STATE_DIR", &mut settings.state_dir)?;
        path("ORCHESTRATOR_SUPERVISOR", &mut settings.supervisor)?;
        path("ORCHESTRATOR_CLAUDE", &mut settings.claude)?;
        path("ORCHESTRATOR_MCP_CONFIG_DIR", &mut settings.mcp_config_dir)?;
        path("ORCHESTRATOR_SECRETS_DIR", &mut settings.secrets.secrets_dir)?;
        path("ORCHESTRATOR_KNOWN_HOSTS_FILE", &mut settings.secrets.known_hosts_file)?;
        path("ORCHESTRATOR_ANTHROPIC_API_KEY_FILE", &mut settings.secrets.anthropic_api_key_file)?;
        path("ORCHESTRATOR_BRAVE_API_KEY_FILE", &mut settings.secrets.brave_api_key_file)?;
        self.name(variables::SANDBOX, &mut settings.sandbox)?;
        self.name("ORCHESTRATOR_AGENT", &mut settings.defaults.agent)?;
        self.name("ORCHESTRATOR_BRANCH", &mut settings.defaults.branch)?;
        self.name("ORCHESTRATOR_MODEL", &mut settings.defaults.model)?;
        self.name("ORCHESTRATOR_GITHUB_API_URL", &mut settings.github_api_url)?;
        let github = address::server_of(settings.github_api_url.as_deref());
        self.parsed(
            "ORCHESTRATOR_PLATFORM_REPOSITORY_URL",
            &mut settings.defaults.platform_repository_url,
            |text: &str| address::parse(text, &github),
        )?;
        self.name("ORCHESTRATOR_PLATFORM_BRANCH", &mut settings.defaults.platform_branch)?;
        path("ORCHESTRATOR_SERVE_TOKEN_FILE", &mut settings.serve.token_file)?;
        for (name, slot) in [
            ("ORCHESTRATOR_SERVE_ADDRESS", &mut settings.serve.address),
            ("ORCHESTRATOR_SERVE_METRICS_ADDRESS", &mut settings.serve.metrics_address),
        ] {
            if let Some(value) = self.text(name) {
                let invalid = |error| Error::configuration(format!("invalid {name}: {error}"));
                *slot = Some(super::serve::parse_address(value).map_err(invalid)?);
            }
        }
        self.name("ORCHESTRATOR_KUBERNETES_CONTEXT", &mut settings.kubernetes.context)?;
        self.name("ORCHESTRATOR_KUBERNETES_IMAGE", &mut settings.kubernetes.image)?;
        if let Some(namespace) = self.text("ORCHESTRATOR_KUBERNETES_NAMESPACE") {
            namespace.clone_into(&mut settings.kubernetes.namespace);
        }
        self.list("ORCHESTRATOR_SERVE_ALLOWED_HOSTS", &mut settings.serve.allowed_hosts);
        self.list("ORCHESTRATOR_SERVE_ALLOWED_ORIGINS", &mut settings.serve.allowed_origins);
        Ok(())
    }

    /// Overrides an agent's credential files and account with `ORCHESTRATOR_*` variables.
    pub(super) fn overlay_agent(&self, agent: &mut AgentSettings) -> Result<(), Error> {
        self.file("ORCHESTRATOR_GITHUB_TOKEN_FILE", &mut agent.github_token_file)?;
        self.file("ORCHESTRATOR_PLATFORM_TOKEN_FILE", &mut agent.platform_token_file)?;
        self.file("ORCHESTRATOR_SSH_KEY_FILE", &mut agent.ssh_key_file)?;
        self.name("ORCHESTRATOR_GITHUB_USER", &mut agent.github_user)
    }

    fn file(&self, name: &str, slot: &mut Option<PathBuf>) -> Result<(), Error> {
        let Some(value) = self.os(name) else { return Ok(()) };
        if !Path::new(value).is_absolute() {
            let problem = format!("environment variable {name} is not an absolute path: {}", value.display());
            return Err(Error::configuration(problem).with_hint("Use an absolute path."));
        }
        *slot = Some(PathBuf::from(value));
        Ok(())
    }

    /// Reads a comma-separated list.
    fn list(&self, name: &str, slot: &mut Vec<String>) {
        if let Some(value) = self.text(name) {
            *slot = value
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(str::to_owned)
                .collect();
        }
    }

    fn name<T>(&self, name: &str, slot: &mut Option<T>) -> Result<(), Error>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.parsed(name, slot, str::parse)
    }

    fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        slot: &mut Option<T>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<(), Error> {
        let Some(value) = self.os(name) else { return Ok(()) };
        let parsed = parse(&value.to_string_lossy())
            .map_err(|error| Error::configuration(format!("invalid environment variable {name}: {error}")))?;
        *slot = Some(parsed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(variables: &[(&str, &str)]) -> Vec<String> {
        let environment: Environment = variables.iter().copied().collect();
        environment.passed().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn supervisor_environment_has_allowlisted_vars_only() {
        let variables = [
            ("PATH", "/bin"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("CARGO_REGISTRY_TOKEN", "x"),
            ("GITHUB_TOKEN", "x"),
            ("GITHUB_TOKEN_2", "x"),
            ("ANTHROPIC_BASE_URL", "x"),
            ("SSH_AUTH_SOCK", "x"),
            ("ORCHESTRATOR_SANDBOX", "off"),
            ("ORCHESTRATOR_SERVE_TOKEN", "x"),
            ("ORCHESTRATOR_TASK", "7"),
        ];
        assert_eq!(
            passed(&variables),
            ["ANTHROPIC_BASE_URL", "GITHUB_TOKEN", "ORCHESTRATOR_SANDBOX", "PATH"]
        );
    }

    #[test]
    fn container_environment_excludes_possible_secrets() {
        let environment: Environment = [
            ("PATH", "/bin"),
            ("ANTHROPIC_BASE_URL", "https://model.example.com"),
            ("ANTHROPIC_CUSTOM_HEADERS", "x"),
            ("ANTHROPIC_NEW_THING", "x"),
            ("GITHUB_TOKEN", "x"),
            ("GITHUB_API_URL", ""),
            ("HTTPS_PROXY", "http://me:secret@proxy"),
            ("HTTP_PROXY", "http://proxy"),
            ("ORCHESTRATOR_SUPERVISOR", "/bin/supervisor"),
            ("ORCHESTRATOR_SANDBOX", "off"),
        ]
        .into_iter()
        .collect();
        let all: Vec<_> = environment.container_vars().map(|(name, _, way)| (name, way)).collect();
        assert_eq!(
            all,
            [
                ("ANTHROPIC_BASE_URL", EnvDelivery::Plain),
                ("ANTHROPIC_CUSTOM_HEADERS", EnvDelivery::SecretFile),
                ("ANTHROPIC_NEW_THING", EnvDelivery::SecretFile),
                ("GITHUB_TOKEN", EnvDelivery::SecretFile),
                ("HTTPS_PROXY", EnvDelivery::SecretFile),
                ("HTTP_PROXY", EnvDelivery::Plain),
                ("ORCHESTRATOR_SANDBOX", EnvDelivery::Plain),
            ]
        );
    }

    #[test]
    fn cloud_credentials_are_passed_only_for_cloud_models() {
        let variables = [("AWS_PROFILE", "x"), ("CLOUD_ML_REGION", "x"), ("CLAUDE_CODE_USE_BEDROCK", "1")];
        assert_eq!(passed(&variables), ["AWS_PROFILE", "CLAUDE_CODE_USE_BEDROCK", "CLOUD_ML_REGION"]);
        assert_eq!(
            passed(&[("AWS_PROFILE", "x"), ("CLAUDE_CODE_USE_BEDROCK", "")]),
            ["CLAUDE_CODE_USE_BEDROCK"]
        );
    }

    #[test]
    fn environment_overrides_config_file() {
        let mut settings = FileSettings::default();
        settings.defaults.model = Some("opus".to_owned());
        let environment: Environment =
            [("ORCHESTRATOR_MODEL", "haiku"), ("ORCHESTRATOR_AGENT", "")].into_iter().collect();
        environment.overlay(&mut settings).unwrap();
        assert_eq!((settings.defaults.model.as_deref(), settings.defaults.agent), (Some("haiku"), None));
    }

    #[test]
    fn environment_lists_are_split_at_commas() {
        let mut settings = FileSettings::default();
        settings.serve.allowed_origins = vec!["https://kept.example.com".to_owned()];
        let environment: Environment =
            [("ORCHESTRATOR_SERVE_ALLOWED_HOSTS", "a.example.com, b.example.com:8750,")]
                .into_iter()
                .collect();
        environment.overlay(&mut settings).unwrap();
        assert_eq!(settings.serve.allowed_hosts, ["a.example.com", "b.example.com:8750"]);
        assert_eq!(settings.serve.allowed_origins, ["https://kept.example.com"]);
    }

    #[test]
    fn invalid_environment_variable_is_named_in_error() {
        for (name, value) in [
            ("ORCHESTRATOR_AGENT", "../x"),
            ("ORCHESTRATOR_SUPERVISOR", "bin/supervisor"),
            ("ORCHESTRATOR_SERVE_ADDRESS", "here"),
            ("ORCHESTRATOR_SANDBOX", "auto"),
        ] {
            let environment: Environment = [(name, value)].into_iter().collect();
            let problem = environment.overlay(&mut FileSettings::default()).unwrap_err();
            assert_eq!(problem.exit_code(), 78);
            assert!(problem.to_string().contains(name), "{problem}");
        }
    }

    #[test]
    fn environment_debug_output_hides_values() {
        let environment: Environment = [("GITHUB_TOKEN", "hunter2")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), "{\"GITHUB_TOKEN\"}");
    }
}
