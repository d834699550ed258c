//! Keys that the backend does not read, so that a user learns which file decides instead.

use orchestrator_contract::{AgentName, variables};

use super::{BackendKind, Config};
use crate::error::Error;

impl Config {
    /// Returns a warning for each key of this configuration that runs of the agent ignore.
    ///
    /// In a cluster, the controller's configuration decides which hosts receive a token. Remote callers get no
    /// warning: the configuration of the server is not theirs.
    ///
    /// # Errors
    /// Returns an error if a variable is invalid.
    pub fn ignored_keys(&self, agent: &AgentName) -> Result<Vec<String>, Error> {
        if self.backend != BackendKind::Kubernetes || self.folder.serves_remote_callers() {
            return Ok(Vec::new());
        }
        let has_hosts = !self.agent(agent)?.git_hosts.is_empty();
        let names = [
            self.github_api_url.is_some().then(|| "`github_api_url`".to_owned()),
            has_hosts.then(|| format!("`git_hosts` of [agents.{agent}]")),
            self.environment.text(variables::GIT_HOSTS).map(|_| variables::GIT_HOSTS.to_owned()),
        ];
        let warning = |name: String| {
            format!("{name} is ignored here: in a cluster, the controller's orchestrator.toml decides")
        };
        Ok(names.into_iter().flatten().map(warning).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Flags};

    fn config(folder: &Path, backend: BackendKind, variables: &[(&str, &str)]) -> Config {
        let own = folder.join("own.toml");
        std::fs::write(
            &own,
            "github_api_url = \"https://ghe.example.com/api/v3\"\n\
             [agents.a]\ngit_hosts = [\"git.example.com\"]\n",
        )
        .unwrap();
        let state = folder.to_str().unwrap();
        let environment: Environment =
            [("ORCHESTRATOR_STATE_DIR", state)].iter().chain(variables).copied().collect();
        let flags = Flags { config: Some(own), backend: Some(backend), ..Flags::default() };
        Config::load(environment, flags, folder).unwrap()
    }

    #[test]
    fn client_keys_that_only_controller_reads_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let names = |config: &Config, agent: &str| -> Vec<String> {
            let warnings = config.ignored_keys(&AgentName::new(agent).unwrap()).unwrap();
            assert!(warnings.iter().all(|text| text.contains("the controller's orchestrator.toml")));
            warnings.iter().filter_map(|text| Some(text.split_once(" is ignored")?.0.to_owned())).collect()
        };
        let cluster = config(folder.path(), BackendKind::Kubernetes, &[]);
        assert_eq!(names(&cluster, "a"), ["`github_api_url`", "`git_hosts` of [agents.a]"]);
        assert_eq!(names(&cluster, "b"), ["`github_api_url`"]);
        assert_eq!(names(&cluster.for_remote_callers(), "a"), [""; 0]);
        let stated =
            config(folder.path(), BackendKind::Kubernetes, &[("ORCHESTRATOR_GIT_HOSTS", "git.example.com")]);
        assert_eq!(names(&stated, "b"), ["`github_api_url`", "ORCHESTRATOR_GIT_HOSTS"]);
        for backend in [BackendKind::Local, BackendKind::Docker] {
            assert_eq!(names(&config(folder.path(), backend, &[]), "a"), [""; 0]);
        }
    }
}
