//! Limits per caller, and graceful shutdown.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use dispatcher::serve::{Limits, ServeOptions, Shutdown};
use serde_json::json;

use super::http::{Request, connect, cut, exchange, read};
use super::test_server::{TestServer, settings};

const LIMIT: Duration = Duration::from_secs(25);

fn with(limits: Limits) -> ServeOptions {
    ServeOptions { limits, ..settings() }
}

fn count() -> Request {
    Request::tool("count", &json!({}))
}

fn hold() -> Request {
    Request::tool("hold", &json!({}))
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited too long for {what}");
        #[expect(clippy::disallowed_methods, reason = "polls without a runtime")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn oversized_request_is_rejected_in_any_encoding() {
    let server = TestServer::start(settings());
    let body = |size: usize| {
        let mut request = count();
        request.body.push_str(&" ".repeat(size - request.body.len()));
        request
    };
    let most = Limits::default().body;
    assert_eq!(body(most).send(server.address).status, 200);
    assert_eq!(body(most + 1).send(server.address).status, 413);
    let mut chunked = count().with("Transfer-Encoding", "chunked");
    chunked.body.clear();
    let mut bytes = chunked.bytes();
    let chunk = " ".repeat(most + 1);
    bytes.extend(format!("{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len()).into_bytes());
    assert_eq!(exchange(server.address, &bytes).status, 413);
    assert_eq!(server.started(), 1);
}

#[test]
fn slow_clients_are_disconnected_without_delaying_others() {
    let short = Duration::from_millis(200);
    let limits = Limits { connections: 2, head_time: short, body_time: short, ..Limits::default() };
    let server = TestServer::start(with(limits));
    let bytes = count().bytes();
    let head_end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    // Some never finish their head, others never their body: together they use all connections.
    let mut heads = connect(server.address);
    heads.write_all(&bytes[..head_end - 10]).unwrap();
    let mut bodies = connect(server.address);
    bodies.write_all(&bytes[..head_end + 10]).unwrap();
    assert_eq!(count().send(server.address).status, 200);
    assert_eq!(read(&mut bodies).status, 408);
    let mut rest = Vec::new();
    drop(heads.read_to_end(&mut rest));
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(server.started(), 1);
}

#[test]
fn idle_connection_is_closed() {
    let limits = Limits { head_time: Duration::from_millis(200), ..Limits::default() };
    let server = TestServer::start(with(limits));
    let mut idle = connect(server.address);
    let alive = count().without("Connection").bytes();
    idle.write_all(&alive).unwrap();
    // To the end: the server closes the connection.
    assert_eq!(read(&mut idle).status, 200);
}

#[test]
fn calls_above_limit_are_rejected() {
    let server = TestServer::start(with(Limits { calls: 1, ..Limits::default() }));
    let mut held = connect(server.address);
    held.write_all(&hold().bytes()).unwrap();
    eventually("the call to begin", || server.started() == 1);
    assert_eq!(count().send(server.address).status, 503);
    server.tools.go.notify_waiters();
    assert_eq!(read(&mut held).status, 200);
    eventually("its slot to be free", || count().send(server.address).status == 200);
}

#[test]
fn call_completes_after_client_disconnects() {
    let server = TestServer::start(settings());
    for request in [hold(), Request::modern_tool("hold", &json!({}))] {
        let (started, ended) = (server.started(), server.ended());
        let mut caller = connect(server.address);
        caller.write_all(&request.bytes()).unwrap();
        eventually("the call to begin", || server.started() == started + 1);
        cut(caller);
        assert_eq!(count().send(server.address).status, 200);
        server.tools.go.notify_waiters();
        // The call above, and the one of the disconnected client.
        eventually("the call to end", || server.ended() == ended + 2);
    }
}

#[test]
fn shutdown_answers_calls_in_flight() {
    let mut server = TestServer::start(settings());
    let mut idle = connect(server.address);
    let mut held = connect(server.address);
    held.write_all(&hold().bytes()).unwrap();
    eventually("the call to begin", || server.started() == 1);
    server.stop();
    eventually("the accept loop to stop", || std::net::TcpStream::connect(server.address).is_err());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    server.tools.go.notify_waiters();
    assert_eq!(read(&mut held).status, 200);
    assert_eq!(server.join(), Shutdown::Graceful);
}

#[test]
fn shutdown_is_bounded_or_immediate_when_repeated() {
    let mut bounded =
        TestServer::start(with(Limits { grace: Duration::from_millis(100), ..Limits::default() }));
    let mut immediate = TestServer::start(settings());
    let held = [&bounded, &immediate].map(|server| {
        let mut held = connect(server.address);
        held.write_all(&hold().bytes()).unwrap();
        eventually("the call to begin", || server.started() == 1);
        held
    });
    bounded.stop();
    assert_eq!(bounded.join(), Shutdown::Graceful);
    immediate.stop();
    immediate.stop_now();
    assert_eq!((immediate.join(), Shutdown::Immediate(15).exit_code()), (Shutdown::Immediate(15), 143));
    drop(held);
}
