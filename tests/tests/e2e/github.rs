//! The fake GitHub API with a plain HTTP client.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use orchestrator_tests::git_server::{Access, GitServer};
use orchestrator_tests::github::GitHub;
use serde_json::{Value, json};

fn ask(github: &GitHub, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let address = github.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).unwrap();
    let body = body.to_string();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn duplicate_or_branchless_pull_request_is_rejected() {
    let git = Arc::new(GitServer::start());
    git.create("myorg/trader", "main", &[("a", "1")]);
    git.allow("writer", Access::Write);
    git.allow("reader", Access::Read);
    let github = GitHub::start(Arc::clone(&git));
    let pulls = "/api/v3/repos/myorg/trader/pulls";
    let new = json!({"title": "t", "body": "b", "head": "feature/x", "base": "main"});
    assert_eq!(
        ask(&github, "writer", "GET", "/repos/myorg/trader", &Value::Null).1["default_branch"],
        "main"
    );
    assert_eq!(ask(&github, "writer", "GET", "/repos/myorg/other", &Value::Null).0, 404);
    assert_eq!(ask(&github, "unknown", "POST", pulls, &new).0, 401);
    assert_eq!(ask(&github, "reader", "POST", pulls, &new).0, 403);
    assert_eq!(ask(&github, "writer", "POST", pulls, &new).0, 422);
    git.commit("myorg/trader", "feature/x", "work", &[("a", "2")]);
    assert_eq!(ask(&github, "writer", "POST", pulls, &new).0, 201);
    assert_eq!(ask(&github, "writer", "POST", pulls, &new).0, 422);
    let tip = git.commit("myorg/trader", "feature/x", "more", &[("a", "3")]);
    let found =
        ask(&github, "writer", "GET", &format!("{pulls}?head=myorg%3Afeature%2Fx&state=open"), &Value::Null)
            .1;
    assert_eq!(found[0]["head"]["sha"], tip.as_str());
    let changed = ask(&github, "writer", "PATCH", &format!("{pulls}/1"), &json!({"state": "closed"})).1;
    assert_eq!(changed["state"], "closed");
    assert_eq!(github.pulls().len(), 1);
}
