//! Pull requests on GitHub and GitHub Enterprise.
//!
//! [`Forge::publish`] opens exactly one pull request, whatever fails on the way: it lists open ones
//! before each attempt. Retries are bounded, redirects stay on the host, and no message contains a
//! header or a token.

mod api;
mod error;

use std::time::Duration;

use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::outcome::PullRequest;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use api::{Api, Method};
pub use api::{RetryPolicy, TokenSource};
pub use error::ForgeError;

use crate::tls::CertificatePaths;

/// REST API of github.com.
const GITHUB_API: &str = "https://api.github.com";

/// Maximum pages of comments to search for the marker.
const MAX_COMMENT_PAGES: u32 = 20;

/// Repository on the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repository {
    /// User or organization.
    pub owner: String,
    pub name: String,
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Access to a repository, as reported by the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepositoryAccess {
    /// Current owner and name, after a rename or transfer.
    pub repository: Repository,
    /// Whether the token's user may push, if the host reports it.
    pub may_push: Option<bool>,
    /// Whether the repository is archived, so read-only.
    pub archived: bool,
    /// Default branch.
    pub default_branch: Option<String>,
}

/// Content of a pull request.
#[derive(Clone, Debug)]
pub struct PullRequestDraft<'a> {
    /// Head branch.
    pub head: &'a str,
    /// Base branch.
    pub base: &'a str,
    /// Commit that the head must have.
    pub oid: &'a str,
    pub title: &'a str,
    /// Body in Markdown.
    pub body: &'a str,
}

/// GitHub host.
pub struct Forge {
    api: Api,
}

#[derive(Deserialize)]
struct RepositoryResponse {
    full_name: Option<String>,
    #[serde(default)]
    archived: bool,
    permissions: Option<Permissions>,
    default_branch: Option<String>,
}

#[derive(Deserialize)]
struct Permissions {
    push: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
struct PullResponse {
    number: u64,
    html_url: Option<String>,
    head: RefResponse,
    base: RefResponse,
}

#[derive(Clone, Debug, Deserialize)]
struct RefResponse {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
}

#[derive(Deserialize)]
struct CommentResponse {
    body: Option<String>,
}

impl Forge {
    /// Returns the GitHub host of a repository, or `None` for other hosts.
    ///
    /// GitHub hosts are github.com and the host of `api_url` (`GITHUB_API_URL`), such as
    /// `https://ghe.example/api/v3` for `ghe.example`.
    #[must_use]
    pub fn of(
        url: &RepositoryUrl,
        api_url: Option<&str>,
        token: TokenSource,
        certificates: CertificatePaths,
        policy: RetryPolicy,
    ) -> Option<(Self, Repository)> {
        let host = url.host()?.to_ascii_lowercase();
        // SSH over the HTTPS port.
        let host = if host == "ssh.github.com" { "github.com".to_owned() } else { host };
        let configured = api_url.map(str::trim).filter(|base| !base.is_empty());
        let base = match configured.filter(|base| api::host(base).is_some_and(|its| git_host(&its) == host)) {
            Some(base) => base,
            None if host == "github.com" => GITHUB_API,
            None => return None,
        };
        let (owner, name) = url.owner_and_name()?;
        let repository = Repository { owner: owner.to_owned(), name: name.to_owned() };
        Some((Self { api: Api::new(base, token, certificates, policy) }, repository))
    }

    /// Reads the access to a repository. Requires only the permissions of a push.
    ///
    /// # Errors
    /// Returns an error if the repository cannot be read.
    pub async fn check(&self, repository: &Repository) -> Result<RepositoryAccess, ForgeError> {
        let path = format!("/repos/{repository}");
        let response: RepositoryResponse =
            self.api.call(Method::Get, &path, None, &repository.to_string()).await?;
        let moved = response.full_name.as_deref().and_then(|name| name.split_once('/'));
        Ok(RepositoryAccess {
            repository: moved.map_or_else(
                || repository.clone(),
                |(owner, name)| Repository { owner: owner.to_owned(), name: name.to_owned() },
            ),
            may_push: response.permissions.and_then(|permissions| permissions.push),
            archived: response.archived,
            default_branch: response.default_branch,
        })
    }

    /// Finds the open pull request of a branch; one into `base` takes precedence.
    ///
    /// # Errors
    /// Returns an error if the pull requests cannot be listed.
    pub async fn find(
        &self,
        repository: &Repository,
        head: &str,
        base: &str,
    ) -> Result<Option<PullRequest>, ForgeError> {
        Ok(self.find_open(repository, head, base).await?.map(|pull| pull.into_pull_request(false)))
    }

    /// Opens the pull request or updates the open one, and waits until it shows the pushed commit.
    ///
    /// # Errors
    /// Returns an error if the host rejects it, does not respond in time, or shows another commit.
    pub async fn publish(
        &self,
        repository: &Repository,
        draft: &PullRequestDraft<'_>,
    ) -> Result<PullRequest, ForgeError> {
        let RetryPolicy { retries, catch_up, .. } = self.api.policy();
        with_timeout(retries * 2 + catch_up, self.publish_with_retries(repository, draft)).await
    }

    async fn publish_with_retries(
        &self,
        repository: &Repository,
        draft: &PullRequestDraft<'_>,
    ) -> Result<PullRequest, ForgeError> {
        // The API redirects from the old name, but its `head` filter needs the current owner.
        let repository = &self.check(repository).await?.repository;
        let (pull, created) = self.find_or_create(repository, draft).await?;
        if !created {
            let path = format!("/repos/{repository}/pulls/{}", pull.number);
            let update = serde_json::json!({ "title": draft.title, "body": draft.body });
            self.api
                .call::<PullResponse>(Method::Patch, &path, Some(&update), &repository.to_string())
                .await?;
        }
        self.read_back(repository, pull.number, draft.oid, created).await
    }

    async fn find_or_create(
        &self,
        repository: &Repository,
        draft: &PullRequestDraft<'_>,
    ) -> Result<(PullResponse, bool), ForgeError> {
        let PullRequestDraft { head, base, oid: _, title, body } = draft;
        let path = format!("/repos/{repository}/pulls");
        let new = serde_json::json!({ "title": title, "head": head, "base": base, "body": body });
        let mut retries = self.api.retries();
        let mut may_be_created = false;
        loop {
            if let Some(pull) = self.find_open(repository, head, base).await? {
                // If a failed request preceded, that request created it.
                return Ok((pull, may_be_created));
            }
            let response = self.api.send_once(Method::Post, &path, Some(&new)).await;
            let failure =
                match response.and_then(|response| response.parse::<PullResponse>(&repository.to_string())) {
                    Ok(pull) => return Ok((pull, true)),
                    Err(failure) => failure,
                };
            match failure {
                ForgeError::Refused { ref message, .. } if message.contains("No commits between") => {
                    return Err(ForgeError::NoDifference {
                        head: (*head).to_owned(),
                        base: (*base).to_owned(),
                    });
                }
                ForgeError::Refused { status: 422, ref message }
                    if message.to_lowercase().contains("already exists") =>
                {
                    // The list of pull requests lags behind.
                    retries.wait(None, failure).await?;
                }
                ForgeError::Unavailable { retry_after, refused, .. } => {
                    may_be_created |= !refused;
                    retries.wait(retry_after, failure).await?;
                }
                ForgeError::TokenMissing
                | ForgeError::Authentication { .. }
                | ForgeError::PermissionDenied { .. }
                | ForgeError::NotFound { .. }
                | ForgeError::NoDifference { .. }
                | ForgeError::Client { .. }
                | ForgeError::TooManyRedirects { .. }
                | ForgeError::Refused { .. }
                | ForgeError::OtherHost { .. }
                | ForgeError::OtherHead { .. } => return Err(failure),
            }
        }
    }

    async fn find_open(
        &self,
        repository: &Repository,
        head: &str,
        base: &str,
    ) -> Result<Option<PullResponse>, ForgeError> {
        let filter = api::percent_encoded(&format!("{}:{head}", repository.owner));
        let path = format!("/repos/{repository}/pulls?state=open&per_page=100&head={filter}");
        let mut pulls: Vec<PullResponse> =
            self.api.call(Method::Get, &path, None, &repository.to_string()).await?;
        // GitHub ignores an invalid filter and returns all pull requests.
        pulls.retain(|pull| pull.head.branch == head);
        pulls.sort_by_key(|pull| (pull.base.branch != base, pull.number));
        Ok(pulls.into_iter().next())
    }

    async fn read_back(
        &self,
        repository: &Repository,
        number: u64,
        oid: &str,
        created: bool,
    ) -> Result<PullRequest, ForgeError> {
        let path = format!("/repos/{repository}/pulls/{number}");
        let end = Instant::now() + self.api.policy().catch_up;
        let mut wait = self.api.policy().first_wait / 2;
        loop {
            let pull: PullResponse = self.api.call(Method::Get, &path, None, &repository.to_string()).await?;
            if pull.head.sha == oid {
                return Ok(pull.into_pull_request(created));
            }
            if Instant::now() + wait > end {
                let PullRequest { url, head, .. } = pull.into_pull_request(created);
                return Err(ForgeError::OtherHead { url, expected: oid.to_owned(), found: head });
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Adds a comment to a pull request, unless a comment has the same marker.
    ///
    /// The marker is appended as an HTML comment, which GitHub does not show.
    ///
    /// # Errors
    /// Returns an error if the host rejects it or does not respond in time.
    pub async fn comment(
        &self,
        repository: &Repository,
        number: u64,
        marker: &str,
        text: &str,
    ) -> Result<(), ForgeError> {
        with_timeout(
            self.api.policy().retries * 2,
            self.comment_with_retries(repository, number, marker, text),
        )
        .await
    }

    async fn comment_with_retries(
        &self,
        repository: &Repository,
        number: u64,
        marker: &str,
        text: &str,
    ) -> Result<(), ForgeError> {
        let marker = format!("<!-- {} -->", marker.replace("--", "- -"));
        let path = format!("/repos/{repository}/issues/{number}/comments");
        let new = serde_json::json!({ "body": format!("{text}\n\n{marker}") });
        let subject = repository.to_string();
        let mut retries = self.api.retries();
        loop {
            if self.has_comment(&path, &marker, &subject).await? {
                return Ok(());
            }
            let response = self.api.send_once(Method::Post, &path, Some(&new)).await;
            match response.and_then(|response| response.parse::<serde::de::IgnoredAny>(&subject)) {
                Ok(_) => return Ok(()),
                Err(failure @ ForgeError::Unavailable { retry_after, .. }) => {
                    retries.wait(retry_after, failure).await?;
                }
                Err(other) => return Err(other),
            }
        }
    }

    async fn has_comment(&self, path: &str, marker: &str, subject: &str) -> Result<bool, ForgeError> {
        for page in 1..=MAX_COMMENT_PAGES {
            let path = format!("{path}?per_page=100&page={page}");
            let comments: Vec<CommentResponse> = self.api.call(Method::Get, &path, None, subject).await?;
            let has_marker =
                |comment: &CommentResponse| comment.body.as_ref().is_some_and(|body| body.contains(marker));
            if comments.iter().any(has_marker) {
                return Ok(true);
            }
            if comments.len() < 100 {
                break;
            }
        }
        Ok(false)
    }
}

impl std::fmt::Debug for Forge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forge").field("base", &self.api.base()).finish_non_exhaustive()
    }
}

impl PullResponse {
    fn into_pull_request(self, created: bool) -> PullRequest {
        let Self { number, html_url, head, base: _ } = self;
        PullRequest { url: html_url.unwrap_or_default(), number, created, head: head.sha }
    }
}

/// Limits the total time of calls that each have a timeout.
async fn with_timeout<T>(
    limit: Duration,
    calls: impl Future<Output = Result<T, ForgeError>>,
) -> Result<T, ForgeError> {
    let why = || format!("no result within {} s", limit.as_secs());
    let late = |_| Err(ForgeError::Unavailable { why: why(), retry_after: None, refused: false });
    timeout(limit, calls).await.unwrap_or_else(late)
}

/// Returns the git host for the host of a REST API.
fn git_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "api.github.com" => "github.com".to_owned(),
        // GitHub Enterprise Cloud with data residency.
        other => {
            other.strip_prefix("api.").filter(|rest| rest.ends_with(".ghe.com")).unwrap_or(other).to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
