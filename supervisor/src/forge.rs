//! Pull requests on GitHub and GitHub Enterprise.
//!
//! Exactly one pull request comes of [`Forge::publish`], whatever fails on the way: it
//! looks before each creation. Nothing is retried without a bound, no redirect leaves the
//! host, and no message holds a header or a token.

mod api;
mod error;

use std::sync::Arc;
use std::time::Duration;

use orchestrator_contract::RepositoryUrl;
use orchestrator_contract::outcome::PullRequest;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use api::{Api, Method};
pub use error::ForgeError;

/// Where the token is read, at each use: it may be rotated.
pub type TokenSource = Arc<dyn Fn() -> Option<SecretString> + Send + Sync>;

/// Where github.com's interface is.
const GITHUB_API: &str = "https://api.github.com";

/// How many pages of comments are looked through for our own.
const COMMENT_PAGES: u32 = 20;

/// How long is waited, and for what.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// For one request, its answer included.
    pub request: Duration,
    /// For all attempts of one call.
    pub retries: Duration,
    /// Before the second attempt; doubled each time.
    pub first_wait: Duration,
    /// For the host to see the pushed commit in the pull request.
    pub catch_up: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            retries: Duration::from_secs(60),
            first_wait: Duration::from_secs(1),
            // GitHub has been seen to be 50 s late.
            catch_up: Duration::from_secs(90),
        }
    }
}

/// A repository on the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repository {
    /// The user or organisation.
    pub owner: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// What the host says about a repository before anything is spent on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepositoryAccess {
    /// Where the repository is now, if it was renamed or moved.
    pub repository: Repository,
    /// Whether the token's user may push; none where the host does not say.
    pub may_push: Option<bool>,
    /// Whether it is archived, and so read-only.
    pub archived: bool,
    /// Its default branch.
    pub default_branch: Option<String>,
}

/// The pull request that is wanted.
#[derive(Clone, Debug)]
pub struct PullRequestDraft<'a> {
    /// The branch with the work.
    pub head: &'a str,
    /// The branch that it is for.
    pub base: &'a str,
    /// The commit that the head must have.
    pub oid: &'a str,
    /// The title.
    pub title: &'a str,
    /// The body, in Markdown.
    pub body: &'a str,
}

/// A GitHub host.
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
    /// The host of a repository, if it is a GitHub: github.com, or the host of `api_url`
    /// (`GITHUB_API_URL`), such as `https://ghe.example/api/v3` for `ghe.example`.
    #[must_use]
    pub fn of(
        url: &RepositoryUrl,
        api_url: Option<&str>,
        token: TokenSource,
        patience: RetryPolicy,
    ) -> Option<(Self, Repository)> {
        let host = url.host()?.to_ascii_lowercase();
        // Where GitHub takes SSH on the port of HTTPS.
        let host = if host == "ssh.github.com" { "github.com".to_owned() } else { host };
        let given = api_url.map(str::trim).filter(|base| !base.is_empty());
        let base = match given.filter(|base| api::host(base).is_some_and(|its| git_host(&its) == host)) {
            Some(base) => base,
            None if host == "github.com" => GITHUB_API,
            None => return None,
        };
        let (owner, name) = url.owner_and_name()?;
        let repository = Repository { owner: owner.to_owned(), name: name.to_owned() };
        Some((Self { api: Api::new(base, token, patience) }, repository))
    }

    /// What the host says about a repository. Needs no more rights than a push does.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub async fn check(&self, repository: &Repository) -> Result<RepositoryAccess, ForgeError> {
        let path = format!("/repos/{repository}");
        let seen: RepositoryResponse =
            self.api.call(Method::Get, &path, None, &repository.to_string()).await?;
        let moved = seen.full_name.as_deref().and_then(|name| name.split_once('/'));
        Ok(RepositoryAccess {
            repository: moved.map_or_else(
                || repository.clone(),
                |(owner, name)| Repository { owner: owner.to_owned(), name: name.to_owned() },
            ),
            may_push: seen.permissions.and_then(|permissions| permissions.push),
            archived: seen.archived,
            default_branch: seen.default_branch,
        })
    }

    /// The open pull request of a branch, if there is one; that for `base` before others.
    ///
    /// # Errors
    /// The host does not say.
    pub async fn find(
        &self,
        repository: &Repository,
        head: &str,
        base: &str,
    ) -> Result<Option<PullRequest>, ForgeError> {
        Ok(self.find_open(repository, head, base).await?.map(|pull| pull.seen(false)))
    }

    /// Opens the pull request, or updates title and body of the one that is open, and reads
    /// it back until it has the wanted head.
    ///
    /// # Errors
    /// The host refuses, does not answer in time, or shows another head.
    pub async fn publish(
        &self,
        repository: &Repository,
        wanted: &PullRequestDraft<'_>,
    ) -> Result<PullRequest, ForgeError> {
        let RetryPolicy { retries, catch_up, .. } = self.api.patience();
        with_timeout(retries * 2 + catch_up, self.publish_with_retries(repository, wanted)).await
    }

    async fn publish_with_retries(
        &self,
        repository: &Repository,
        wanted: &PullRequestDraft<'_>,
    ) -> Result<PullRequest, ForgeError> {
        // A renamed repository answers under its old name, but does not find heads by it.
        let repository = &self.check(repository).await?.repository;
        let (pull, created) = self.find_or_create(repository, wanted).await?;
        if !created {
            let path = format!("/repos/{repository}/pulls/{}", pull.number);
            let update = serde_json::json!({ "title": wanted.title, "body": wanted.body });
            self.api
                .call::<PullResponse>(Method::Patch, &path, Some(&update), &repository.to_string())
                .await?;
        }
        self.read_back(repository, pull.number, wanted.oid, created).await
    }

    async fn find_or_create(
        &self,
        repository: &Repository,
        wanted: &PullRequestDraft<'_>,
    ) -> Result<(PullResponse, bool), ForgeError> {
        let PullRequestDraft { head, base, oid: _, title, body } = wanted;
        let path = format!("/repos/{repository}/pulls");
        let new = serde_json::json!({ "title": title, "head": head, "base": base, "body": body });
        let mut retries = self.api.retries();
        let mut asked = false;
        loop {
            if let Some(pull) = self.find_open(repository, head, base).await? {
                // Not there before we asked: ours, though the answer said otherwise.
                return Ok((pull, asked));
            }
            let answer = self.api.send_once(Method::Post, &path, Some(&new)).await;
            let failure =
                match answer.and_then(|answer| answer.parse::<PullResponse>(&repository.to_string())) {
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
                    // The list is a little behind, at times.
                    retries.wait(None, failure).await?;
                }
                ForgeError::Unavailable { retry_after, refused, .. } => {
                    asked |= !refused;
                    retries.wait(retry_after, failure).await?;
                }
                ForgeError::TokenMissing
                | ForgeError::Authentication { .. }
                | ForgeError::PermissionDenied { .. }
                | ForgeError::NotFound { .. }
                | ForgeError::NoDifference { .. }
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
        // GitHub answers with all pull requests where it does not understand the filter.
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
        let end = Instant::now() + self.api.patience().catch_up;
        let mut wait = self.api.patience().first_wait / 2;
        loop {
            let pull: PullResponse = self.api.call(Method::Get, &path, None, &repository.to_string()).await?;
            if pull.head.sha == oid {
                return Ok(pull.seen(created));
            }
            if Instant::now() + wait > end {
                let PullRequest { url, head, .. } = pull.seen(created);
                return Err(ForgeError::OtherHead { url, expected: oid.to_owned(), found: head });
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Adds a comment to a pull request, once: one that has the same `marker` in its text
    /// is not added again. The marker is put into the comment, unseen.
    ///
    /// # Errors
    /// The host refuses or does not answer in time.
    pub async fn comment(
        &self,
        repository: &Repository,
        number: u64,
        marker: &str,
        text: &str,
    ) -> Result<(), ForgeError> {
        with_timeout(
            self.api.patience().retries * 2,
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
            let answer = self.api.send_once(Method::Post, &path, Some(&new)).await;
            match answer.and_then(|answer| answer.parse::<serde::de::IgnoredAny>(&subject)) {
                Ok(_) => return Ok(()),
                Err(failure @ ForgeError::Unavailable { retry_after, .. }) => {
                    retries.wait(retry_after, failure).await?;
                }
                Err(other) => return Err(other),
            }
        }
    }

    async fn has_comment(&self, path: &str, marker: &str, subject: &str) -> Result<bool, ForgeError> {
        for page in 1..=COMMENT_PAGES {
            let path = format!("{path}?per_page=100&page={page}");
            let comments: Vec<CommentResponse> = self.api.call(Method::Get, &path, None, subject).await?;
            let is_ours =
                |comment: &CommentResponse| comment.body.as_ref().is_some_and(|body| body.contains(marker));
            if comments.iter().any(is_ours) {
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
    fn seen(self, created: bool) -> PullRequest {
        let Self { number, html_url, head, base: _ } = self;
        PullRequest { url: html_url.unwrap_or_default(), number, created, head: head.sha }
    }
}

/// A bound on calls that each have their own.
async fn with_timeout<T>(
    limit: Duration,
    calls: impl Future<Output = Result<T, ForgeError>>,
) -> Result<T, ForgeError> {
    let why = || format!("not done within {} s", limit.as_secs());
    let late = |_| Err(ForgeError::Unavailable { why: why(), retry_after: None, refused: false });
    timeout(limit, calls).await.unwrap_or_else(late)
}

/// The git host of an interface's host.
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
