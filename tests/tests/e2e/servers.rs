//! The fake GitHub API with octocrab, and the SSH server with git and ssh.

use std::sync::Arc;
use std::time::{Duration, Instant};

use octocrab::models::{IssueState, Repository, pulls::PullRequest};
use octocrab::service::middleware::retry::RetryConfig;
use octocrab::{Octocrab, Page, params};
use orchestrator_tests::git_server::{Access, GitServer};
use orchestrator_tests::github::{Call, Fault, GitHub};

const REPOSITORY: &str = "myorg/trader";

fn servers() -> (Arc<GitServer>, GitHub) {
    // Another test of this process may have installed it.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let git = Arc::new(GitServer::start());
    git.create(REPOSITORY, "main", &[("a", "1")]);
    git.commit(REPOSITORY, "feature/x", "work", &[("a", "2")]);
    git.allow("writer", Access::Write);
    let github = GitHub::start(Arc::clone(&git));
    (git, github)
}

fn client(github: &GitHub, token: &str, retry: RetryConfig) -> Octocrab {
    let builder = Octocrab::builder().base_uri(github.url()).unwrap();
    builder.personal_token(token.to_owned()).add_retry_config(retry).build().unwrap()
}

async fn create(client: &Octocrab, head: &str) -> octocrab::Result<PullRequest> {
    client.pulls("myorg", "trader").create("t", head, "main").body("b").send().await
}

/// Returns the status and the message of an error.
fn failure<T>(result: octocrab::Result<T>) -> (u16, String) {
    match result.err().expect("a failure") {
        octocrab::Error::GitHub { source, .. } => (source.status_code.as_u16(), source.message.clone()),
        other => panic!("no answer of GitHub: {other}"),
    }
}

#[tokio::test]
async fn octocrab_reads_pull_request_lifecycle() {
    let (git, github) = servers();
    let client = client(&github, "writer", RetryConfig::None);
    let repository: Repository = client.repos("myorg", "trader").get().await.unwrap();
    assert_eq!(repository.default_branch.as_deref(), Some("main"));
    assert!(repository.permissions.unwrap().push);
    let created = create(&client, "feature/x").await.unwrap();
    let tip = git.commit(REPOSITORY, "feature/x", "more", &[("a", "3")]);
    let pulls = client.pulls("myorg", "trader");
    assert_eq!(pulls.get(created.number).await.unwrap().head.sha, tip);
    let found: Page<PullRequest> =
        pulls.list().head("myorg:feature/x").base("main").state(params::State::Open).send().await.unwrap();
    assert_eq!(found.items[0].number, created.number);
    let changed = pulls.update(created.number).title("new").state(params::pulls::State::Closed).send().await;
    let changed = changed.unwrap();
    assert_eq!((changed.title.as_deref(), changed.state), (Some("new"), Some(IssueState::Closed)));
    assert!(pulls.list().state(params::State::Open).send().await.unwrap().items.is_empty());
    let issues = client.issues("myorg", "trader");
    issues.create_comment(created.number, "done").await.unwrap();
    let comments = issues.list_comments(created.number).send().await.unwrap();
    assert_eq!(comments.items[0].body.as_deref(), Some("done"));
    assert_eq!(failure(issues.create_comment(99, "lost").await).0, 404);
}

#[tokio::test]
async fn octocrab_parses_error_responses() {
    let (git, github) = servers();
    git.allow("reader", Access::Read);
    assert_eq!(failure(create(&client(&github, "unknown", RetryConfig::None), "feature/x").await).0, 401);
    assert_eq!(failure(create(&client(&github, "reader", RetryConfig::None), "feature/x").await).0, 403);
    let client = client(&github, "writer", RetryConfig::None);
    assert_eq!(failure(create(&client, "never-pushed").await).0, 422);
    create(&client, "feature/x").await.unwrap();
    let (status, _) = failure(create(&client, "feature/x").await);
    assert_eq!((status, github.pulls().len()), (422, 1));
    assert_eq!(failure(client.repos("myorg", "other").get().await).0, 404);
}

#[tokio::test]
async fn each_fault_breaks_one_call_only() {
    for fault in [Fault::Status(429, Some(1)), Fault::Status(500, None), Fault::SecondaryLimit(60)] {
        let (_git, github) = servers();
        github.fail(Call::Create, 1, fault.clone());
        let client = client(&github, "writer", RetryConfig::None);
        let (status, message) = failure(create(&client, "feature/x").await);
        assert!(status >= 400 && github.pulls().is_empty(), "{fault:?}");
        assert_eq!(message.contains("secondary rate limit"), status == 403, "{fault:?}");
        create(&client, "feature/x").await.unwrap();
    }
}

#[tokio::test]
async fn repeated_failure_after_create_leaves_one_pull_request() {
    let (_git, github) = servers();
    github.fail(Call::Create, 1, Fault::StatusAfter(500));
    let client = client(&github, "writer", RetryConfig::Simple(3));
    // The retry finds the pull request of the first request.
    assert_eq!(failure(create(&client, "feature/x").await).0, 422);
    let calls = github.requests().iter().filter(|request| request.call == Some(Call::Create)).count();
    assert_eq!((calls, github.pulls().len()), (2, 1));
}

#[tokio::test]
async fn late_response_is_applied_immediately() {
    let (_git, github) = servers();
    github.fail(Call::Create, 1, Fault::Late(Duration::from_secs(3600)));
    let client = client(&github, "writer", RetryConfig::None);
    let creation = tokio::spawn(async move { create(&client, "feature/x").await });
    let limit = Instant::now() + Duration::from_secs(30);
    while github.pulls().is_empty() {
        assert!(Instant::now() < limit, "nothing was created");
        tokio::task::yield_now().await;
    }
    assert!(!creation.is_finished());
    creation.abort();
}

#[tokio::test]
async fn renamed_repository_answers_under_new_name() {
    let (_git, github) = servers();
    github.rename("myorg/old", REPOSITORY);
    let client = client(&github, "writer", RetryConfig::None);
    let answer =
        client._get(format!("{}/api/v3/repos/myorg/old/pulls?state=all", github.url())).await.unwrap();
    assert_eq!(answer.status().as_u16(), 301);
    let location = answer.headers()["location"].to_str().unwrap();
    assert_eq!(location, format!("{}/api/v3/repos/{REPOSITORY}/pulls?state=all", github.url()));
    github.archive(REPOSITORY);
    assert_eq!(client.repos("myorg", "trader").get().await.unwrap().archived, Some(true));
}

/// The SSH server with the real git and ssh programs.
mod over_ssh {
    use std::fs;
    use std::io::Read as _;
    use std::net::TcpStream;
    use std::path::Path;
    use std::process::{Command, Output};

    use orchestrator_tests::sshd::{Sshd, Unavailable};

    use super::{GitServer, REPOSITORY};

    fn servers() -> Option<(GitServer, Sshd)> {
        let git = GitServer::start();
        git.create(REPOSITORY, "main", &[("src/lib.rs", "// hello\n")]);
        match Sshd::start(git.root()) {
            Ok(sshd) => Some((git, sshd)),
            Err(Unavailable(why)) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    fn run(folder: &Path, program: &str, ssh: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs([("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_SSH_COMMAND", ssh)]);
        command.envs([("GIT_AUTHOR_NAME", "B"), ("GIT_AUTHOR_EMAIL", "b@example.com")]);
        command.envs([("GIT_COMMITTER_NAME", "B"), ("GIT_COMMITTER_EMAIL", "b@example.com")]);
        command.output().unwrap()
    }

    /// Returns an `ssh` command that knows only these hosts and this key.
    fn ssh(folder: &Path, known_hosts: &str, key: &Path) -> String {
        let known = folder.join("known_hosts");
        fs::write(&known, known_hosts).unwrap();
        let (known, key) = (known.display(), key.display());
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
         -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={known} -i {key}"
        )
    }

    fn stderr(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[test]
    fn ssh_key_clones_and_pushes_by_name_or_absolute_path() {
        let Some((git, sshd)) = servers() else { return };
        let folder = tempfile::tempdir().unwrap();
        let ssh = ssh(folder.path(), &sshd.known_hosts(), &sshd.key());
        let absolute = git.path(REPOSITORY).display().to_string();
        for (place, branch) in [(REPOSITORY, "feature/name"), (absolute.as_str(), "feature/path")] {
            let work = tempfile::tempdir().unwrap();
            let cloned = run(work.path(), "git", &ssh, &["clone", "--depth", "1", &sshd.url(place), "."]);
            assert!(cloned.status.success(), "{}", stderr(&cloned));
            fs::write(work.path().join("big.txt"), "line of text\n".repeat(20_000)).unwrap();
            run(work.path(), "git", &ssh, &["add", "."]);
            run(work.path(), "git", &ssh, &["commit", "-m", "more"]);
            let refspec = format!("HEAD:refs/heads/{branch}");
            let pushed = run(work.path(), "git", &ssh, &["push", "origin", &refspec]);
            assert!(pushed.status.success(), "{}", stderr(&pushed));
            assert_eq!(git.ahead(REPOSITORY, "main", branch), 1);
        }
    }

    #[test]
    fn unknown_client_or_server_key_is_rejected() {
        let Some((_git, sshd)) = servers() else { return };
        let folder = tempfile::tempdir().unwrap();
        let url = sshd.url(REPOSITORY);
        for (known, key, expected) in [
            (sshd.known_hosts(), sshd.unknown_key(), "Permission denied"),
            (sshd.wrong_known_hosts(), sshd.key(), "Host key verification failed"),
            (String::new(), sshd.key(), "Host key verification failed"),
        ] {
            let ssh = ssh(folder.path(), &known, &key);
            let listed = run(folder.path(), "git", &ssh, &["ls-remote", &url]);
            assert!(!listed.status.success() && stderr(&listed).contains(expected), "{}", stderr(&listed));
        }
    }

    #[test]
    fn ssh_server_serves_only_git_below_root() {
        let Some((git, sshd)) = servers() else { return };
        let folder = tempfile::tempdir().unwrap();
        let ssh = ssh(folder.path(), &sshd.known_hosts(), &sshd.key());
        let address = sshd.url(REPOSITORY);
        let authority = address.strip_suffix("/myorg/trader.git").unwrap();
        let outside = GitServer::start();
        outside.create("other/secret", "main", &[("a", "1")]);
        let up = format!("{}/../{}", git.root().display(), outside.path("other/secret").display());
        for path in [&outside.path("other/secret").display().to_string(), &up, "/no/where.git"] {
            let listed = run(folder.path(), "git", &ssh, &["ls-remote", &format!("{authority}{path}")]);
            assert!(!listed.status.success(), "{path}");
        }
        let answer = |words_sent: &str| {
            let words = format!("{ssh} {authority} -- \"$0\"");
            run(folder.path(), "sh", &ssh, &["-c", &words, words_sent])
        };
        assert!(answer("git-upload-pack '/myorg/trader.git'").stdout.starts_with(b"0"));
        for words_sent in ["id", "", "git-upload-pack '$(id)'", "git-upload-pack 'x'; id'"] {
            let output = answer(words_sent);
            assert!(!output.status.success() && output.stdout.is_empty(), "{words_sent}: {output:?}");
        }
    }

    #[test]
    fn ssh_server_ends_with_its_sessions() {
        let Some((_git, sshd)) = servers() else { return };
        let pid = sshd.pid();
        let address = sshd.url("").replace("ssh://root@", "").replace("/.git", "");
        // A client that sends only its banner keeps a session open.
        let mut client = TcpStream::connect(address).unwrap();
        let mut hello = [0; 4];
        client.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"SSH-");
        drop(sshd);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        // Closed or reset: either way the session's process has exited.
        client.read_to_end(&mut Vec::new()).ok();
    }
}
