//! One request to `git http-backend`, streamed in both directions.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures::{StreamExt as _, stream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::Fault;

/// Runs git for a request and applies a fault to the response.
pub(super) async fn run(root: &Path, repository: &str, request: Request, fault: Option<&Fault>) -> Response {
    let mut child = command(root, repository, &request).spawn().expect("git http-backend starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut body = request.into_body().into_data_stream();
    tokio::spawn(async move {
        // Git or the client may close the connection early, which ends the transfer.
        while let Some(Ok(chunk)) = body.next().await {
            if stdin.write_all(&chunk).await.is_err() {
                break;
            }
        }
    });
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut response = Response::new(Body::empty());
    loop {
        let mut line = String::new();
        let read = stdout.read_line(&mut line).await.unwrap_or(0);
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            assert!(read > 0, "git http-backend ended before its headers");
            break;
        };
        if name == "Status" {
            let code = value.split(' ').next().unwrap_or_default();
            *response.status_mut() = code.parse().expect("a status");
        } else {
            let name = axum::http::HeaderName::try_from(name).expect("a header");
            response.headers_mut().append(name, value.parse().expect("a value"));
        }
    }
    *response.body_mut() = match fault {
        None => stream(child, stdout),
        Some(fault) => {
            let mut whole = Vec::new();
            stdout.read_to_end(&mut whole).await.expect("git's answer");
            child.wait().await.expect("git's end");
            spoil(whole, fault)
        }
    };
    response
}

fn command(root: &Path, repository: &str, request: &Request) -> Command {
    let path = request.uri().path();
    let service = path.splitn(4, '/').nth(3).unwrap_or_default();
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "someone")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", format!("/{repository}.git/{service}"))
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    for (header, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = request.headers().get(header).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    command
}

fn stream(child: Child, stdout: BufReader<ChildStdout>) -> Body {
    Body::from_stream(stream::unfold((child, stdout), |(child, mut stdout)| async move {
        let mut chunk = vec![0; 64 * 1024];
        match stdout.read(&mut chunk).await {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Ok(Bytes::from(chunk)), (child, stdout)))
            }
            Err(error) => Some((Err(error), (child, stdout))),
        }
    }))
}

fn spoil(mut whole: Vec<u8>, fault: &Fault) -> Body {
    let length = whole.len();
    let keep = match fault {
        Fault::CutAt(bytes) | Fault::Truncate(bytes) => (*bytes).min(length),
        Fault::CutAtPercent(share) => length * (*share).min(100) / 100,
        Fault::ResetAfter => 0,
        _ => length,
    };
    whole.truncate(keep);
    let kept = Bytes::from(whole);
    match fault {
        Fault::Truncate(_) => Body::from(kept),
        Fault::SlowLoris => Body::from_stream(stream::unfold(kept, |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            let byte = rest.split_to(1);
            Some((Ok::<_, io::Error>(byte), rest))
        })),
        _ => Body::from_stream(stream::unfold(Some(kept), |kept| async move {
            if let Some(kept) = kept {
                return Some((Ok(kept), None));
            }
            // Sends the buffered bytes first: curl repeats a request that was reset without a response.
            tokio::task::yield_now().await;
            Some((Err(io::Error::other("cut on purpose")), None))
        })),
    }
}
