//! Environment variables that both programs read or pass on.

/// Host names, separated by commas, that may receive the git token.
pub const GIT_HOSTS: &str = "ORCHESTRATOR_GIT_HOSTS";

/// Base URL of the GitHub API.
pub const GITHUB_API_URL: &str = "GITHUB_API_URL";

/// Token with which a relay of the agent reaches one MCP server of the supervisor.
pub const MCP_RELAY_TOKEN: &str = "ORCHESTRATOR_MCP_RELAY_TOKEN";

/// Directory with one file per secret, named as in [`crate::secrets`].
pub const SECRETS_DIR: &str = "ORCHESTRATOR_SECRETS_DIR";

/// Time for the agent to exit after SIGTERM, in seconds.
pub const AGENT_GRACE_SECONDS: &str = "ORCHESTRATOR_AGENT_GRACE_SECONDS";

/// Time from the first stop request until the push is skipped, in seconds.
pub const STOP_TIMEOUT_SECONDS: &str = "ORCHESTRATOR_STOP_TIMEOUT_SECONDS";

/// Maximum duration of each step after the agent, in seconds.
pub const PUBLISH_TIMEOUT_SECONDS: &str = "ORCHESTRATOR_PUBLISH_TIMEOUT_SECONDS";

/// Whether runs need a sandbox: `required`, `best-effort` or `off`.
pub const SANDBOX: &str = "ORCHESTRATOR_SANDBOX";

/// The only kind of sandbox to use, for tests.
pub const SANDBOX_KIND: &str = "ORCHESTRATOR_SANDBOX_KIND";

/// Variables that define a task of a supervisor without a task file, in alphabetical order.
///
/// The dispatcher does not pass them on: its supervisors get their task from a file.
pub const TASK: &[&str] = &[
    "ORCHESTRATOR_AGENT",
    "ORCHESTRATOR_ALL",
    "ORCHESTRATOR_BRANCH",
    "ORCHESTRATOR_CONCURRENCY",
    "ORCHESTRATOR_COST_USD",
    "ORCHESTRATOR_DEPTH",
    "ORCHESTRATOR_DOCS_DIRECTORY",
    "ORCHESTRATOR_FORCE",
    "ORCHESTRATOR_FRESH",
    "ORCHESTRATOR_GITHUB_USER",
    "ORCHESTRATOR_GUIDANCE",
    "ORCHESTRATOR_KIND",
    "ORCHESTRATOR_MCP_SERVERS",
    "ORCHESTRATOR_MODEL",
    "ORCHESTRATOR_NO_PULL_REQUEST",
    "ORCHESTRATOR_PLATFORM_BRANCH",
    "ORCHESTRATOR_PLATFORM_REPOSITORY_URL",
    "ORCHESTRATOR_REPOSITORY_URL",
    "ORCHESTRATOR_RETRY",
    "ORCHESTRATOR_SERVICE",
    "ORCHESTRATOR_SETUP",
    "ORCHESTRATOR_TASK",
    "ORCHESTRATOR_TIMEOUT_MINUTES",
    "ORCHESTRATOR_TURNS",
    "ORCHESTRATOR_VERIFY",
    "ORCHESTRATOR_VERIFY_KEEP",
    "ORCHESTRATOR_WAIT_FOR_QUOTA",
    "ORCHESTRATOR_WORKING_DIRECTORY",
];

/// Variables that describe the machine; dispatcher, supervisor and agent all pass them on.
pub const MACHINE: &[&str] = &[
    "TZ",
    "LC_ALL",
    "RUSTUP_TOOLCHAIN",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Those of [`MACHINE`] that name files with certificates.
pub const CERTIFICATES: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"];

/// Settings of the Claude Code CLI that are passed on to it; none is secret.
pub const MODEL_SETTINGS: &[&str] =
    &["API_TIMEOUT_MS", "CLAUDE_CODE_MAX_OUTPUT_TOKENS", "CLAUDE_CODE_MAX_RETRIES", "MAX_THINKING_TOKENS"];
