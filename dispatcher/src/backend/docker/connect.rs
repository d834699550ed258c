//! Finds and connects to the engine, and explains why it cannot be reached.

use std::path::{Path, PathBuf};

use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker as Client};
use orchestrator_contract::Reason;

use crate::config::{Config, Environment};
use crate::error::{Error, error_chain};

/// Seconds until the engine must start to respond.
const RESPONSE_TIMEOUT_SECONDS: u64 = 60;

/// How long version negotiation may take.
const NEGOTIATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A connected engine.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) client: Client,
    /// Address, for messages and for its command line.
    pub(super) address: String,
}

/// Returns the addresses to try in order.
fn candidates(named: Option<&str>, environment: &Environment) -> Vec<String> {
    if let Some(host) = named.or_else(|| environment.text("DOCKER_HOST")) {
        return vec![host.to_owned()];
    }
    let at = |folder: Option<PathBuf>, rest: &str| folder.map(|folder| folder.join(rest));
    let (home, runtime) = (environment.path("HOME"), environment.path("XDG_RUNTIME_DIR"));
    [
        Some(PathBuf::from("/var/run/docker.sock")),
        at(runtime.clone(), "docker.sock"),
        at(home.clone(), ".docker/run/docker.sock"),
        at(home, ".colima/default/docker.sock"),
        at(runtime, "podman/podman.sock"),
        Some(PathBuf::from("/run/podman/podman.sock")),
    ]
    .into_iter()
    .flatten()
    .map(|path| format!("unix://{}", path.display()))
    .collect()
}

/// Returns the socket path of an address.
fn socket(address: &str) -> Result<&Path, Error> {
    match address.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(Path::new(path)),
        Some(_) | None => {
            Err(Error::configuration(format!("`{address}` is not the address of a Unix socket")).with_hint(
                "Use unix:///path. Forward the socket of another machine with: ssh -nNT -L \
             /tmp/docker.sock:/var/run/docker.sock HOST",
            ))
        }
    }
}

/// Connects to the configured engine, else to the first one found.
///
/// # Errors
/// Returns an error if no engine responds.
pub(super) async fn connect(config: &Config) -> Result<Engine, Error> {
    let named = config.docker().host.as_deref();
    let all = candidates(named, &config.environment);
    let found = match all.as_slice() {
        [one] => Some(one.as_str()),
        several => several.iter().map(String::as_str).find(|address| exists(address)),
    };
    let Some(address) = found else {
        let tried: Vec<&str> = all.iter().map(|address| address.trim_start_matches("unix://")).collect();
        return Err(Error::configuration(format!(
            "no container engine found at {}",
            tried.join(", ")
        ))
        .with_hint("Start docker or podman (systemctl --user start podman.socket), or set its socket with DOCKER_HOST."));
    };
    let path = socket(address)?;
    let failed = |error: &EngineError| no_answer(address, path, error);
    let client = Client::connect_with_unix(address, RESPONSE_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
        .map_err(|error| failed(&error))?;
    let negotiated = tokio::time::timeout(NEGOTIATION_TIMEOUT, client.negotiate_version()).await;
    let client =
        negotiated.unwrap_or(Err(EngineError::RequestTimeoutError)).map_err(|error| failed(&error))?;
    Ok(Engine { client, address: address.to_owned() })
}

fn exists(address: &str) -> bool {
    socket(address).is_ok_and(Path::exists)
}

fn no_answer(address: &str, path: &Path, error: &EngineError) -> Error {
    if !path.exists() {
        return Error::configuration(format!("no container engine at {address}"))
            .with_hint("Start it, or set its socket with DOCKER_HOST or `host` in [docker].");
    }
    let denied = rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ACCESS);
    if denied {
        return Error::configuration(format!("no permission to use the container engine at {address}"))
            .with_hint("Join the group of its socket (usermod -aG docker YOU), or use a rootless engine.");
    }
    Error::new(
        Reason::RemoteUnavailable,
        format!("the container engine at {address} does not respond: {}", error_chain(error)),
    )
    .with_hint("Start it (systemctl start docker), then try again.")
}

/// Converts an engine's error response to an [`Error`].
pub(super) fn problem(doing: &str, error: &EngineError) -> Error {
    let message = if let EngineError::DockerResponseServerError { message, .. } = error {
        message.trim().to_owned()
    } else {
        error_chain(error)
    };
    let text = format!("the container engine cannot {doing}: {message}");
    if message.contains("no space left") {
        return Error::new(Reason::DiskFull, text);
    }
    Error::new(Reason::RemoteUnavailable, text)
        .with_hint("Check the engine's log (journalctl -u docker) and `dispatcher doctor`, then try again.")
}

/// Returns the HTTP status of an engine's error response.
pub(super) fn status(error: &EngineError) -> Option<u16> {
    let EngineError::DockerResponseServerError { status_code, .. } = error else { return None };
    Some(*status_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::advice::render_for_cli;

    #[test]
    fn explicit_engine_address_overrides_defaults() {
        let environment: Environment =
            [("DOCKER_HOST", "unix:///d"), ("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1")]
                .into_iter()
                .collect();
        assert_eq!(candidates(Some("unix:///n"), &environment), ["unix:///n"]);
        assert_eq!(candidates(None, &environment), ["unix:///d"]);
        let environment: Environment =
            [("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1")].into_iter().collect();
        let all = candidates(None, &environment);
        assert_eq!(all[0], "unix:///var/run/docker.sock");
        assert!(all.contains(&"unix:///run/user/1/podman/podman.sock".to_owned()), "{all:?}");
    }

    #[test]
    fn non_socket_engine_address_error_shows_valid_form() {
        for address in ["tcp://1.2.3.4:2375", "ssh://host", "/var/run/docker.sock", "unix://rel"] {
            let problem = socket(address).unwrap_err();
            assert_eq!(problem.exit_code(), 78);
            assert!(render_for_cli(problem.hint()).contains("unix:///path"), "{problem}");
        }
    }
}
