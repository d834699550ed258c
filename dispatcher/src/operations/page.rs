//! The `open` command: the page of a run's pull request.

use std::path::Path;

use orchestrator_contract::{Reason, RepositoryUrl, RunName, http_url};

use super::checkout::{is_pushed, not_saved};
use super::dispatcher::Dispatcher;
use crate::error::Error;
use crate::process;
use crate::task::advice::Advice;
use crate::task::text::sanitize;

/// The page of a pull request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PullRequestPage {
    pub url: String,
    /// Whether it is an `https` page of the repository's own host, which a browser may open.
    pub is_trusted: bool,
}

/// Programs that open a page in the user's browser.
const OPENERS: [&str; 2] =
    if cfg!(target_os = "macos") { ["open", "xdg-open"] } else { ["xdg-open", "open"] };

/// Variables that a browser needs.
const BROWSER_VARS: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "BROWSER",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_CURRENT_DESKTOP",
    "DBUS_SESSION_BUS_ADDRESS",
];

impl Dispatcher {
    /// Returns the page of a run's pull request.
    ///
    /// # Errors
    /// Returns an error if no such run exists or it has no pull request.
    pub async fn pull_request_page(&self, run: &RunName) -> Result<PullRequestPage, Error> {
        let status = self.status_of(self.run(run).await?).await?;
        let Some(url) = status.pull_request else {
            if !status.phase.is_final() {
                return Err(not_saved(run));
            }
            let is_pushed = is_pushed(&status);
            let hint = if is_pushed { Advice::CheckOut } else { Advice::ShowStatus };
            return Err(Error::invalid_request(format!(
                "`{run}` has no pull request: it is {}",
                status.phase
            ))
            .with_hint(hint(run.clone())));
        };
        let repository = RepositoryUrl::new(status.repository).ok();
        Ok(PullRequestPage { is_trusted: is_own_page(&url, repository.as_ref()), url: sanitize(&url) })
    }

    /// Opens a page in the user's browser; returns false if there is no program for that.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
    pub fn open_page(&self, page: &PullRequestPage) -> Result<bool, Error> {
        let environment = &self.config.environment;
        let opener = OPENERS.iter().find_map(|opener| process::find(opener, environment.os("PATH")));
        let Some(opener) = opener.filter(|_| page.is_trusted) else { return Ok(false) };
        let mut command = process::command(&opener);
        for name in BROWSER_VARS {
            if let Some(value) = environment.os(name) {
                command.env(name, value);
            }
        }
        command.arg(&page.url);
        process::start_detached(command).map_err(|error| cannot_start(&opener, &error))?;
        Ok(true)
    }
}

fn cannot_start(opener: &Path, error: &std::io::Error) -> Error {
    Error::new(Reason::IoError, format!("cannot run {}: {error}", opener.display()))
}

/// Returns whether a URL, which the git host reported, is an `https` page of the repository's host.
fn is_own_page(url: &str, repository: Option<&RepositoryUrl>) -> bool {
    let Some(page) = http_url::parse(url).filter(|url| url.scheme() == "https") else { return false };
    let Some(host) = repository.and_then(RepositoryUrl::host) else { return false };
    let host = host.to_ascii_lowercase();
    // GitHub serves SSH over port 443 on a host of its own.
    page.host_str().is_some_and(|page| page == host || host.strip_prefix("ssh.") == Some(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_pages_of_own_host_are_opened() {
        for (page, repository, expected) in [
            ("https://github.com/o/r/pull/7", "https://github.com/o/r.git", true),
            ("https://github.com/o/r/pull/7", "git@github.com:o/r.git", true),
            ("https://github.com/o/r/pull/7", "ssh://git@ssh.github.com:443/o/r.git", true),
            ("http://github.com/o/r/pull/7", "https://github.com/o/r.git", false),
            ("https://github.com.evil.example/o/r/pull/7", "https://github.com/o/r.git", false),
            ("https://github.com@evil.example/pull/7", "https://github.com/o/r.git", false),
            ("file:///etc/passwd", "https://github.com/o/r.git", false),
            ("javascript:alert(1)", "https://github.com/o/r.git", false),
            ("--help", "https://github.com/o/r.git", false),
            ("https://github.com/o/r/pull/7", "/srv/git/r.git", false),
        ] {
            let repository = RepositoryUrl::new(repository).unwrap();
            assert_eq!(is_own_page(page, Some(&repository)), expected, "{page} {repository}");
        }
        assert!(!is_own_page("https://github.com/o/r/pull/7", None));
    }
}
