//! The environment of the supervisor at its start.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::process::Environment;

/// The environment of the supervisor at its start.
#[derive(Clone, Debug)]
pub struct ProcessEnv {
    variables: BTreeMap<OsString, OsString>,
}

/// Variables that describe the machine and are passed to every child.
const PASSTHROUGH_VARS: &[&str] = &[
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

/// The subdirectory of the secrets that contains environment variables as files.
const ENVIRONMENT_DIR: &str = "environment";

impl ProcessEnv {
    /// Reads the environment of this process.
    #[must_use]
    pub fn read() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// Adds the variables that are files in the directory `environment` of the secrets.
    ///
    /// Containers get credentials this way, because `docker inspect` shows their environment.
    #[must_use]
    pub fn with_files(mut self, secrets: Option<&Path>) -> Self {
        let entries = secrets.and_then(|directory| std::fs::read_dir(directory.join(ENVIRONMENT_DIR)).ok());
        for entry in entries.into_iter().flatten().flatten() {
            // An unreadable variable is reported as missing where it is needed.
            if let Ok(value) = std::fs::read_to_string(entry.path()) {
                self.variables.insert(entry.file_name(), value.trim_end_matches('\n').into());
            }
        }
        self
    }

    /// Creates an environment from (name, value) pairs, for tests.
    #[must_use]
    pub fn from_pairs(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { variables }
    }

    /// Returns a variable if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Returns a variable as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str)
    }

    /// Returns the variables that describe the machine and are passed to every child.
    #[must_use]
    pub fn passthrough(&self) -> Environment {
        let pair = |name: &&str| Some(((*name).into(), self.get(name)?.to_owned()));
        PASSTHROUGH_VARS.iter().filter_map(pair).collect()
    }

    /// Returns the search path for programs.
    #[must_use]
    pub fn path(&self) -> OsString {
        self.get("PATH").map_or_else(|| "/usr/local/bin:/usr/bin:/bin".into(), OsStr::to_owned)
    }

    /// Returns the rustup directory: `RUSTUP_HOME`, else `.rustup` in the home directory.
    #[must_use]
    pub fn rustup_home(&self) -> Option<PathBuf> {
        let configured = self.get("RUSTUP_HOME").map(PathBuf::from);
        configured
            .or_else(|| Some(PathBuf::from(self.get("HOME")?).join(".rustup")))
            .filter(|directory| directory.is_dir())
    }

    /// Returns the variables with names that start with one of the prefixes.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefixes: &'a [&str],
    ) -> impl Iterator<Item = (OsString, OsString)> + 'a {
        self.variables
            .iter()
            .filter(|(name, value)| {
                !value.is_empty()
                    && name
                        .to_str()
                        .is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            })
            .map(|(name, value)| (name.clone(), value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passthrough_environment_has_no_secret() {
        let process_env =
            ProcessEnv::from_pairs(&[("TZ", "UTC"), ("GITHUB_TOKEN", "t"), ("AWS_SECRET_ACCESS_KEY", "s")]);
        assert_eq!(process_env.passthrough(), Environment::from([("TZ".into(), "UTC".into())]));
    }
}
