//! Reads credentials from files or the environment. Files are read on each use, to support rotation.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use orchestrator_contract::{secrets, variables};
use secrecy::{ExposeSecret as _, SecretString};

use super::kubeconfig;
use super::process_env::ProcessEnv;
use crate::process::Environment;

/// Files that contain credentials; the rest is read from the environment.
#[derive(Args, Clone, Debug, Default)]
pub struct SecretFiles {
    /// Directory with one file per secret
    ///
    /// The files are `github-token`, `platform-token`, `ssh-privatekey`, `known_hosts`,
    /// `anthropic-api-key`, `brave-api-key`, and the secrets of other MCP servers. The subdirectory
    /// `environment` has one file per environment variable.
    #[arg(long, env = variables::SECRETS_DIR)]
    pub secrets_dir: Option<PathBuf>,
    /// File with the token for the target repository
    ///
    /// It is also used for the platform repository if that has no token of its own.
    #[arg(long, env = "ORCHESTRATOR_GITHUB_TOKEN_FILE")]
    pub github_token_file: Option<PathBuf>,
    /// File with the token for the platform repository
    #[arg(long, env = "ORCHESTRATOR_PLATFORM_TOKEN_FILE")]
    pub platform_token_file: Option<PathBuf>,
    /// File with the private key for SSH
    #[arg(long, env = "ORCHESTRATOR_SSH_KEY_FILE")]
    pub ssh_key_file: Option<PathBuf>,
    /// File with additional SSH host keys
    ///
    /// The keys of GitHub, GitLab and Bitbucket are built in.
    #[arg(long, env = "ORCHESTRATOR_KNOWN_HOSTS_FILE")]
    pub known_hosts_file: Option<PathBuf>,
    /// File with the API key for the model
    #[arg(long, env = "ORCHESTRATOR_ANTHROPIC_API_KEY_FILE")]
    pub anthropic_api_key_file: Option<PathBuf>,
    /// File with the API key for the `brave` MCP server
    #[arg(long, env = "ORCHESTRATOR_BRAVE_API_KEY_FILE")]
    pub brave_api_key_file: Option<PathBuf>,
}

/// Reads secrets by name, from files or from the environment at the start.
#[derive(Clone, Debug)]
pub struct SecretSource {
    files: SecretFiles,
    process_env: ProcessEnv,
}

/// The error of a secret file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read secret `{name}` from `{}`", path.display())]
pub struct SecretError {
    pub name: String,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// The credential for the model API.
#[derive(Clone, Debug)]
pub struct ModelCredential {
    /// The environment variables of the CLI: credential, base URL, options.
    pub environment: Environment,
    /// The kind of credential, for the log.
    pub kind: &'static str,
    /// How requests are authenticated.
    pub auth: ModelAuth,
}

/// How requests to the model API are authenticated.
#[derive(Clone, Debug)]
pub enum ModelAuth {
    /// With the header `x-api-key`.
    ApiKey(SecretString),
    /// With a bearer token in the header `authorization`.
    Bearer(SecretString),
    /// With the bearer token of a subscription; the CLI then sends other headers too.
    OAuth(SecretString),
    /// With a signature that the CLI creates from cloud credentials.
    CloudSigned,
}

impl SecretSource {
    /// Creates a source of secrets in these files and this environment.
    #[must_use]
    pub fn new(files: SecretFiles, process_env: ProcessEnv) -> Self {
        Self { files, process_env }
    }

    /// Returns the environment at the start.
    #[must_use]
    pub fn process_env(&self) -> &ProcessEnv {
        &self.process_env
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        let configured = match name {
            secrets::GITHUB_TOKEN => &self.files.github_token_file,
            secrets::PLATFORM_TOKEN => &self.files.platform_token_file,
            secrets::SSH_KEY => &self.files.ssh_key_file,
            secrets::KNOWN_HOSTS => &self.files.known_hosts_file,
            secrets::ANTHROPIC_API_KEY => &self.files.anthropic_api_key_file,
            secrets::BRAVE_API_KEY => &self.files.brave_api_key_file,
            _ => &None,
        };
        let in_directory = || Some(self.files.secrets_dir.as_ref()?.join(name)).filter(|path| path.is_file());
        configured.clone().or_else(in_directory)
    }

    /// Returns the file of a secret, for programs that need a path: `ssh-privatekey`, `known_hosts`.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.path_of(name)
    }

    /// Returns the file of a secret, followed by the files that it refers to if it is a kubeconfig.
    #[must_use]
    pub fn files(&self, name: &str) -> Option<Vec<PathBuf>> {
        let path = self.path_of(name)?;
        let text = if name == secrets::KUBECONFIG { std::fs::read_to_string(&path).ok() } else { None };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let referenced = text.map(|text| kubeconfig::referenced_files(&text, directory)).unwrap_or_default();
        Some(std::iter::once(path.clone()).chain(referenced).collect())
    }

    /// Reads a secret. Returns `None` if it is not configured.
    ///
    /// # Errors
    /// Returns an error if the file is configured but cannot be read or is empty.
    pub fn read(&self, name: &str) -> Result<Option<SecretString>, SecretError> {
        if let Some(path) = self.path_of(name) {
            return read_file(name, &path).map(Some);
        }
        let found = secrets::variables(name).iter().find_map(|variable| self.process_env.text(variable));
        Ok(found.map(|text| SecretString::from(text.trim())))
    }

    /// Reads the token for the platform repository: its own, else that of the target repository.
    ///
    /// # Errors
    /// Returns an error if a file is configured but cannot be read or is empty.
    pub fn platform_token(&self) -> Result<Option<SecretString>, SecretError> {
        match self.read(secrets::PLATFORM_TOKEN)? {
            Some(token) => Ok(Some(token)),
            None => self.read(secrets::GITHUB_TOKEN),
        }
    }

    /// Reads the model credential: API key, OAuth token, bearer token, Bedrock, Vertex.
    ///
    /// Returns `None` if none is configured.
    ///
    /// # Errors
    /// Returns an error if a file is configured but cannot be read or is empty.
    pub fn model(&self) -> Result<Option<ModelCredential>, SecretError> {
        let mut environment: Environment = self.process_env.with_prefix(&["ANTHROPIC_"]).collect();
        environment.extend(self.process_env.with_prefix(variables::MODEL_SETTINGS));
        let set = |name: &str| self.process_env.get(name).is_some();
        let token = |name: &str| SecretString::from(self.process_env.text(name).unwrap_or_default().trim());
        if let Some(key) = self.read(secrets::ANTHROPIC_API_KEY)? {
            environment.insert("ANTHROPIC_API_KEY".into(), OsString::from(key.expose_secret()));
            return Ok(Some(ModelCredential { environment, kind: "API key", auth: ModelAuth::ApiKey(key) }));
        }
        if set("CLAUDE_CODE_OAUTH_TOKEN") {
            environment.extend(self.process_env.with_prefix(&["CLAUDE_CODE_OAUTH_TOKEN"]));
            let auth = ModelAuth::OAuth(token("CLAUDE_CODE_OAUTH_TOKEN"));
            return Ok(Some(ModelCredential { environment, kind: "OAuth token", auth }));
        }
        if set("ANTHROPIC_AUTH_TOKEN") {
            let auth = ModelAuth::Bearer(token("ANTHROPIC_AUTH_TOKEN"));
            return Ok(Some(ModelCredential { environment, kind: "bearer token", auth }));
        }
        if set("CLAUDE_CODE_USE_BEDROCK") {
            environment.extend(self.process_env.with_prefix(&["CLAUDE_CODE_USE_BEDROCK", "AWS_"]));
            return Ok(Some(ModelCredential { environment, kind: "Bedrock", auth: ModelAuth::CloudSigned }));
        }
        if set("CLAUDE_CODE_USE_VERTEX") {
            let prefixes = ["CLAUDE_CODE_USE_VERTEX", "CLOUD_ML_REGION", "GOOGLE_", "VERTEX_"];
            environment.extend(self.process_env.with_prefix(&prefixes));
            return Ok(Some(ModelCredential { environment, kind: "Vertex", auth: ModelAuth::CloudSigned }));
        }
        Ok(None)
    }

    /// Reads every secret, with its label, for redaction.
    #[must_use]
    pub fn all(&self) -> Vec<(String, SecretString)> {
        let mut names: Vec<String> = secrets::NAMES.map(str::to_owned).to_vec();
        let entries = self.files.secrets_dir.as_ref().and_then(|directory| std::fs::read_dir(directory).ok());
        let in_directory =
            entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .extend(in_directory.filter(|name| {
                !secrets::NON_SECRET_FILES.contains(&name.as_str()) && !name.starts_with('.')
            }));
        names.sort();
        names.dedup();
        let mut all: Vec<(String, SecretString)> = names
            .into_iter()
            // An unreadable secret cannot leak; it is reported where it is needed.
            .filter_map(|name| Some((name.clone(), self.read(&name).ok()??)))
            .flat_map(|(name, value)| match name.as_str() {
                secrets::KUBECONFIG => kubeconfig::secret_values(value.expose_secret())
                    .into_iter()
                    .map(|value| (name.clone(), SecretString::from(value)))
                    .collect(),
                _ => vec![(name, value)],
            })
            .collect();
        for variable in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_BEARER_TOKEN_BEDROCK",
            "GITHUB_TOKEN",
            "GH_TOKEN",
            "BRAVE_API_KEY",
        ] {
            let value = self.process_env.text(variable).map(str::trim).map(SecretString::from);
            all.extend(value.map(|value| (variable.to_owned(), value)));
        }
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            let values = self.process_env.text(variable).map(proxy_secrets).unwrap_or_default();
            all.extend(values.into_iter().map(|value| ("proxy password".to_owned(), value.into())));
        }
        all
    }
}

/// Returns the password in a proxy's URL, as written and decoded, alone and with its user.
fn proxy_secrets(url: &str) -> Vec<String> {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, password)) =
        authority.rsplit_once('@').and_then(|(user_info, _)| user_info.split_once(':'))
    else {
        return Vec::new();
    };
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (plain_user, plain) = (decode(user), decode(password));
    vec![password.to_owned(), format!("{user}:{password}"), format!("{plain_user}:{plain}"), plain]
}

fn read_file(name: &str, path: &Path) -> Result<SecretString, SecretError> {
    let error = |source| SecretError { name: name.to_owned(), path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(error)?;
    if text.trim().is_empty() {
        return Err(error(io::Error::new(io::ErrorKind::InvalidData, "file is empty")));
    }
    Ok(SecretString::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(variables: &[(&str, &str)]) -> SecretSource {
        SecretSource::new(SecretFiles::default(), ProcessEnv::from_pairs(variables))
    }

    #[test]
    fn rotated_token_is_read_on_next_use() {
        let folder = tempfile::tempdir().unwrap();
        let files = SecretFiles { secrets_dir: Some(folder.path().to_owned()), ..SecretFiles::default() };
        let source = SecretSource::new(files, ProcessEnv::from_pairs(&[]));
        assert!(source.read("github-token").unwrap().is_none());
        for token in ["first", "second"] {
            std::fs::write(folder.path().join("github-token"), format!("{token}\n")).unwrap();
            assert_eq!(source.read("github-token").unwrap().unwrap().expose_secret(), token);
        }
    }

    #[test]
    fn proxy_password_is_secret() {
        let all = source(&[("https_proxy", "http://ada:p%40ssword1@proxy.example:3128")]).all();
        let values: Vec<_> = all.iter().map(|(_, value)| value.expose_secret()).collect();
        assert_eq!(values, ["p%40ssword1", "ada:p%40ssword1", "ada:p@ssword1", "p@ssword1"]);
        assert!(source(&[("HTTP_PROXY", "http://proxy.example:3128/a@b:c")]).all().is_empty());
    }

    #[test]
    fn secret_variable_is_read_from_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("environment")).unwrap();
        std::fs::write(folder.path().join("environment/CLAUDE_CODE_OAUTH_TOKEN"), "hunter2\n").unwrap();
        let files = SecretFiles { secrets_dir: Some(folder.path().to_owned()), ..SecretFiles::default() };
        let source = SecretSource::new(files, ProcessEnv::from_pairs(&[]).with_files(Some(folder.path())));
        assert_eq!(source.model().unwrap().unwrap().kind, "OAuth token");
        let all = source.all();
        let values: Vec<_> = all.iter().map(|(_, value)| value.expose_secret()).collect();
        assert_eq!(values, ["hunter2"]);
        assert!(source.process_env().text("CLAUDE_CODE_OAUTH_TOKEN").is_some());
    }

    #[test]
    fn model_credential_accepts_every_cli_variable() {
        let kinds = |variables: &[(&str, &str)]| source(variables).model().unwrap().map(|model| model.kind);
        assert_eq!(kinds(&[]), None);
        assert_eq!(kinds(&[("ANTHROPIC_API_KEY", "k")]), Some("API key"));
        assert_eq!(kinds(&[("CLAUDE_CODE_OAUTH_TOKEN", "k")]), Some("OAuth token"));
        assert_eq!(kinds(&[("ANTHROPIC_AUTH_TOKEN", "k")]), Some("bearer token"));
        assert_eq!(kinds(&[("CLAUDE_CODE_USE_BEDROCK", "1")]), Some("Bedrock"));
        assert_eq!(kinds(&[("CLAUDE_CODE_USE_VERTEX", "1")]), Some("Vertex"));
        assert_eq!(kinds(&[("GITHUB_TOKEN", "k"), ("ANTHROPIC_BASE_URL", "http://x")]), None);
    }

    #[test]
    fn model_environment_has_no_git_credential() {
        let model = source(&[("ANTHROPIC_API_KEY", "k"), ("GITHUB_TOKEN", "t"), ("GH_TOKEN", "t")]).model();
        let environment = model.unwrap().unwrap().environment;
        assert!(environment.keys().all(|name| !name.to_string_lossy().contains("TOKEN")), "{environment:?}");
    }

    #[test]
    fn missing_secret_file_error_names_path() {
        let files = SecretFiles { github_token_file: Some("/none/here".into()), ..SecretFiles::default() };
        let error = SecretSource::new(files, ProcessEnv::from_pairs(&[])).read("github-token").unwrap_err();
        assert!(error.to_string().contains("/none/here"), "{error}");
    }
}
