//! Names of secrets: file names in the secrets directory, keys in Kubernetes Secrets, and variables.

/// Token for the target repository, and for the platform repository if it has none of its own.
pub const GITHUB_TOKEN: &str = "github-token";

/// Token for the platform repository.
pub const PLATFORM_TOKEN: &str = "platform-token";

/// Private key for repositories over SSH; also the key in a Secret of type `kubernetes.io/ssh-auth`.
pub const SSH_KEY: &str = "ssh-privatekey";

/// Host keys for SSH, in the format of sshd(8); not secret.
pub const KNOWN_HOSTS: &str = "known_hosts";

/// API key of the model service.
pub const ANTHROPIC_API_KEY: &str = "anthropic-api-key";

/// API key of the Brave search MCP server.
pub const BRAVE_API_KEY: &str = "brave-api-key";

/// Client configuration of the Kubernetes MCP server; only parts of it are secret.
pub const KUBECONFIG: &str = "kubeconfig";

/// Service account token of the Kubernetes MCP server.
pub const KUBERNETES_TOKEN: &str = "kubernetes-token";

/// Certificate authority of the Kubernetes API; not secret.
pub const KUBERNETES_CA: &str = "kubernetes-ca.crt";

/// Subdirectory of the secrets directory with one file per environment variable.
pub const ENVIRONMENT_DIR: &str = "environment";

/// Key of a token in a Kubernetes Secret.
pub const TOKEN_KEY: &str = "token";

/// Key of an API key in a Kubernetes Secret.
pub const API_KEY_KEY: &str = "api-key";

/// Secrets with a fixed name.
pub const NAMES: [&str; 5] = [GITHUB_TOKEN, PLATFORM_TOKEN, SSH_KEY, ANTHROPIC_API_KEY, BRAVE_API_KEY];

/// Files in the secrets directory that are not secret.
pub const NON_SECRET_FILES: [&str; 2] = [KNOWN_HOSTS, KUBERNETES_CA];

/// Returns the environment variables that may hold a secret, in order of precedence.
#[must_use]
pub fn variables(name: &str) -> &'static [&'static str] {
    match name {
        GITHUB_TOKEN => &["GITHUB_TOKEN", "GH_TOKEN"],
        ANTHROPIC_API_KEY => &["ANTHROPIC_API_KEY"],
        BRAVE_API_KEY => &["BRAVE_API_KEY"],
        _ => &[],
    }
}
