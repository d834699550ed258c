use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Response to one request: status, extra headers, body.
type Reply = (u16, String, String);

/// Fake host that returns responses from a list and records the requests.
struct Host {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Host {
    async fn new(replies: impl IntoIterator<Item = (u16, &str)>) -> Self {
        let replies = replies.into_iter().map(|(status, body)| (status, String::new(), body.to_owned()));
        Self::with(replies.collect()).await
    }

    async fn with(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let mut replies = VecDeque::from(replies);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                let text = loop {
                    let mut chunk = [0; 4096];
                    let length = stream.read(&mut chunk).await.unwrap();
                    request.extend_from_slice(&chunk[..length]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let expected = head.to_lowercase().lines().find_map(|line| {
                            line.strip_prefix("content-length: ").and_then(|length| length.parse().ok())
                        });
                        if body.len() >= expected.unwrap_or(0) {
                            break text;
                        }
                    }
                    assert_ne!(length, 0, "incomplete request");
                };
                seen.lock().unwrap().push(text);
                let Some((status, headers, body)) = replies.pop_front() else { continue };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { address, requests }
    }

    fn forge(&self, prefix: &str) -> (Forge, Repository) {
        let url = RepositoryUrl::new(format!("{}/org/trader.git", self.address)).unwrap();
        let token: TokenSource = Arc::new(|| Some("the-token".into()));
        let policy = RetryPolicy {
            request: Duration::from_secs(5),
            retries: Duration::from_millis(700),
            first_wait: Duration::from_millis(20),
            catch_up: Duration::from_millis(300),
        };
        Forge::of(
            &url,
            Some(&format!("{}{prefix}", self.address)),
            token,
            CertificatePaths::default(),
            policy,
        )
        .unwrap()
    }

    fn requests(&self) -> Vec<String> {
        let first = |request: &String| {
            request.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned()
        };
        self.requests.lock().unwrap().iter().map(first).collect()
    }
}

const REPOSITORY: &str = r#"{"full_name":"org/trader","archived":false,"default_branch":"main"}"#;
const PULL: &str = r#"{"number":7,"html_url":"https://h/p/7","head":{"ref":"feature/x","sha":"abc"},"base":{"ref":"main","sha":"0"}}"#;
const DRAFT: PullRequestDraft<'_> =
    PullRequestDraft { head: "feature/x", base: "main", oid: "abc", title: "T", body: "B" };

fn listed() -> String {
    format!("[{PULL}]")
}

#[tokio::test]
async fn new_pull_request_is_opened_under_api_prefix() {
    let host = Host::new([(200, REPOSITORY), (200, "[]"), (201, PULL), (200, PULL)]).await;
    let (forge, repository) = host.forge("/api/v3/");
    let pull = forge.publish(&repository, &DRAFT).await.unwrap();
    assert_eq!((pull.number, pull.created, pull.head.as_str()), (7, true, "abc"));
    assert_eq!(
        host.requests(),
        [
            "GET /api/v3/repos/org/trader",
            "GET /api/v3/repos/org/trader/pulls?state=open&per_page=100&head=org%3Afeature%2Fx",
            "POST /api/v3/repos/org/trader/pulls",
            "GET /api/v3/repos/org/trader/pulls/7",
        ]
    );
    let requests = host.requests.lock().unwrap();
    assert!(requests.iter().all(|request| request.contains("Bearer the-token")));
    assert!(requests[2].contains(r#""head":"feature/x""#), "{}", requests[2]);
}

#[tokio::test]
async fn open_pull_request_is_updated_in_place() {
    let host = Host::new([(200, REPOSITORY), (200, &listed()), (200, PULL), (200, PULL)]).await;
    let (forge, repository) = host.forge("");
    assert!(!forge.publish(&repository, &DRAFT).await.unwrap().created);
    assert_eq!(host.requests()[2], "PATCH /repos/org/trader/pulls/7");
}

#[tokio::test]
async fn create_reported_as_500_opens_one_pull_request() {
    let replies = [(200, REPOSITORY), (200, "[]"), (500, "{}"), (200, &listed()), (200, PULL)];
    let host = Host::new(replies).await;
    let (forge, repository) = host.forge("");
    assert!(forge.publish(&repository, &DRAFT).await.unwrap().created);
    assert_eq!(host.requests().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn already_exists_response_updates_existing_pull_request() {
    let exists = r#"{"message":"Validation Failed","errors":[{"message":"A pull request already exists for org:feature/x."}]}"#;
    let replies = [(200, REPOSITORY), (200, "[]"), (422, exists), (200, &listed()), (200, PULL), (200, PULL)];
    let host = Host::new(replies).await;
    let (forge, repository) = host.forge("");
    assert!(!forge.publish(&repository, &DRAFT).await.unwrap().created);
}

#[tokio::test]
async fn head_equal_to_base_returns_no_difference() {
    let same =
        r#"{"message":"Validation Failed","errors":[{"message":"No commits between main and feature/x"}]}"#;
    let host = Host::new([(200, REPOSITORY), (200, "[]"), (422, same)]).await;
    let (forge, repository) = host.forge("");
    let error = forge.publish(&repository, &DRAFT).await.unwrap_err();
    assert_eq!(error, ForgeError::NoDifference { head: "feature/x".to_owned(), base: "main".to_owned() });
}

#[tokio::test]
async fn rate_limit_retry_after_is_honored_within_bound() {
    let limited = |seconds: &str| (403, format!("retry-after: {seconds}\r\n"), "{}".to_owned());
    let ok = (200, String::new(), REPOSITORY.to_owned());
    let host = Host::with(vec![limited("0"), ok]).await;
    let (forge, repository) = host.forge("");
    forge.check(&repository).await.unwrap();
    let host = Host::with(vec![limited("3600")]).await;
    let (forge, repository) = host.forge("");
    let error = forge.check(&repository).await.unwrap_err();
    assert_eq!(error.check_reason(), orchestrator_contract::Reason::RemoteUnavailable);
    assert_eq!(host.requests().len(), 1);
}

#[tokio::test]
async fn error_statuses_map_to_reasons_without_token() {
    use orchestrator_contract::Reason;
    let cases = [
        (401, Reason::AuthenticationFailed),
        (403, Reason::PermissionDenied),
        (404, Reason::RepositoryNotFound),
        (418, Reason::PullRequestFailed),
    ];
    for (status, reason) in cases {
        let host = Host::new([(status, r#"{"message":"the host's words"}"#)]).await;
        let (forge, repository) = host.forge("");
        let error = forge.check(&repository).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(!format!("{error} {error:?}").contains("the-token"));
        assert!(status == 404 || error.to_string().contains("the host's words"), "{error}");
    }
}

#[tokio::test]
async fn redirect_is_followed_within_same_host_only() {
    let moved = |to: &str| (301, format!("location: {to}\r\n"), "{}".to_owned());
    let renamed = r#"{"full_name":"new/trader","permissions":{"push":true}}"#;
    let host = Host::with(vec![moved("/repositories/1"), (200, String::new(), renamed.to_owned())]).await;
    let (forge, repository) = host.forge("");
    let access = forge.check(&repository).await.unwrap();
    assert_eq!((access.repository.to_string().as_str(), access.may_push), ("new/trader", Some(true)));

    let other = Host::new([(200, REPOSITORY)]).await;
    let host = Host::with(vec![moved(&format!("{}/repos/org/trader", other.address))]).await;
    let (forge, repository) = host.forge("");
    let error = forge.check(&repository).await.unwrap_err();
    assert!(matches!(error, ForgeError::OtherHost { .. }), "{error}");
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn stale_pull_request_head_is_polled_until_limit() {
    let late = PULL.replace("abc", "old");
    let replies = [(200, REPOSITORY), (200, "[]"), (201, &late), (200, &late), (200, PULL)];
    let (forge, repository, _host) = {
        let host = Host::new(replies).await;
        let (forge, repository) = host.forge("");
        (forge, repository, host)
    };
    assert_eq!(forge.publish(&repository, &DRAFT).await.unwrap().head, "abc");
    let mut replies = vec![(200, REPOSITORY), (200, "[]"), (201, late.as_str())];
    replies.extend([(200, late.as_str()); 20]);
    let host = Host::new(replies).await;
    let (forge, repository) = host.forge("");
    let error = forge.publish(&repository, &DRAFT).await.unwrap_err();
    assert!(matches!(error, ForgeError::OtherHead { .. }), "{error}");
}

#[tokio::test]
async fn comment_after_lost_response_is_added_once() {
    let host = Host::new([(200, "[]"), (502, ""), (200, r#"[{"body":"x\n\n<!-- run-1 -->"}]"#)]).await;
    let (forge, repository) = host.forge("");
    forge.comment(&repository, 7, "run-1", "text").await.unwrap();
    assert_eq!(host.requests().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn invalid_token_is_rejected_without_leak() {
    let url = RepositoryUrl::new("https://github.com/o/r").unwrap();
    for (token, reason) in [
        ("two\nlines", orchestrator_contract::Reason::AuthenticationFailed),
        (" \n", orchestrator_contract::Reason::CredentialMissing),
    ] {
        let source: TokenSource = Arc::new(|| Some(token.into()));
        let (forge, repository) =
            Forge::of(&url, None, source, CertificatePaths::default(), RetryPolicy::default()).unwrap();
        let error = forge.check(&repository).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(!error.to_string().contains("lines"), "{error}");
    }
}

#[test]
fn github_hosts_are_detected_from_url() {
    let is_github = |url: &str, api: Option<&str>| {
        let url = RepositoryUrl::new(url).unwrap();
        let forge =
            Forge::of(&url, api, Arc::new(|| None), CertificatePaths::default(), RetryPolicy::default());
        forge.map(|(forge, repository)| format!("{} {repository}", forge.api.base()))
    };
    let github = Some("https://api.github.com o/r".to_owned());
    assert_eq!(is_github("https://github.com/o/r", None), github);
    assert_eq!(is_github("git@github.com:o/r.git", Some("https://api.github.com")), github);
    assert_eq!(is_github("https://github.com/o/r", Some("https://ghe.example/api/v3")), github);
    let enterprise = Some("https://ghe.example/api/v3 o/r".to_owned());
    assert_eq!(is_github("git@ghe.example:o/r.git", Some("https://ghe.example/api/v3/")), enterprise);
    let local = Some("http://127.0.0.1:81 o/r".to_owned());
    assert_eq!(is_github("http://127.0.0.1:80/o/r", Some("http://127.0.0.1:81")), local);
    assert_eq!(is_github("https://gitlab.com/o/r", None), None);
    assert_eq!(is_github("/srv/git/r.git", None), None);
}
