//! The environment of the supervisor at its start.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use orchestrator_contract::secrets::ENVIRONMENT_DIR;
use orchestrator_contract::variables;

use crate::process::Environment;

/// The environment of the supervisor at its start.
#[derive(Clone, Debug)]
pub struct ProcessEnv {
    variables: BTreeMap<OsString, OsString>,
}

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

    /// Returns all variables.
    #[must_use]
    pub fn all(&self) -> &Environment {
        &self.variables
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
    ///
    /// Proxy addresses are passed without user name and password.
    #[must_use]
    pub fn passthrough(&self) -> Environment {
        let pair = |name: &&str| Some(((*name).into(), without_credentials(name, self.get(name)?)));
        variables::MACHINE.iter().filter_map(pair).collect()
    }

    /// Returns the variables whose proxy address is passed without its credentials.
    #[must_use]
    pub fn proxies_with_credentials(&self) -> Vec<&'static str> {
        let changes =
            |name: &&&str| self.get(name).is_some_and(|value| without_credentials(name, value) != value);
        variables::MACHINE.iter().filter(changes).copied().collect()
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

/// Returns the value of a variable; of a proxy address without the user name and password.
fn without_credentials(name: &str, value: &OsStr) -> OsString {
    if !name.to_ascii_lowercase().ends_with("_proxy") || name.eq_ignore_ascii_case("no_proxy") {
        return value.to_owned();
    }
    // An address that is not text could hide credentials.
    let text = value.to_str().unwrap_or_default();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // The last `@`: a password may contain `@` and `/`, although it should be encoded.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}").into()
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

    #[test]
    fn proxy_is_passed_without_its_password() {
        let cases = [
            ("http://user:pw@proxy:3128", "http://proxy:3128"),
            ("http://user:p@w/x@proxy:3128/", "http://proxy:3128/"),
            ("user:pw@proxy:3128", "proxy:3128"),
            ("socks5h://token@[::1]:1080", "socks5h://[::1]:1080"),
            ("http://proxy:3128", "http://proxy:3128"),
        ];
        for (given, passed) in cases {
            let process_env =
                ProcessEnv::from_pairs(&[("https_proxy", given), ("NO_PROXY", "a@b,localhost")]);
            let environment = process_env.passthrough();
            assert_eq!(environment[OsStr::new("https_proxy")], passed);
            assert_eq!(environment[OsStr::new("NO_PROXY")], "a@b,localhost");
            assert_eq!(process_env.proxies_with_credentials().is_empty(), given == passed, "{given}");
        }
    }
}
