//! Authentication, host and origin checks.

use dispatcher::serve::auth::TokenSource;
use dispatcher::serve::{ServeOptions, check};
use serde_json::json;

use super::http::{Request, TOKEN};
use super::test_server::{TestServer, settings};

fn count() -> Request {
    Request::tool("count", &json!({}))
}

#[test]
fn only_allowed_hosts_are_served() {
    let hosts = vec!["orchestrator.example.com".to_owned(), "exact.example.com:8750".to_owned()];
    let server = TestServer::start(ServeOptions { allowed_hosts: hosts, ..settings() });
    let port = server.address.port();
    let cases = [
        ("localhost".to_owned(), 200),
        (format!("localhost:{port}"), 200),
        ("LocalHost:1".to_owned(), 200),
        ("127.0.0.1".to_owned(), 200),
        (format!("127.0.0.1:{port}"), 200),
        ("[::1]".to_owned(), 200),
        (format!("[::1]:{port}"), 200),
        ("orchestrator.example.com".to_owned(), 200),
        ("ORCHESTRATOR.example.com:443".to_owned(), 200),
        ("exact.example.com:8750".to_owned(), 200),
        ("exact.example.com:8751".to_owned(), 403),
        ("exact.example.com".to_owned(), 403),
        ("localhost.".to_owned(), 403),
        ("localhost.evil.example.com".to_owned(), 403),
        ("evil.example.com".to_owned(), 403),
        (format!("evil.example.com:{port}"), 403),
        ("127.0.0.1.evil.example.com".to_owned(), 403),
        ("127.1".to_owned(), 403),
        ("0.0.0.0".to_owned(), 403),
        ("[::ffff:127.0.0.1]".to_owned(), 403),
        ("localhost@evil.example.com".to_owned(), 403),
        ("evil.example.com@localhost".to_owned(), 200),
        ("local host".to_owned(), 400),
        (String::new(), 400),
    ];
    for (host, status) in cases {
        assert_eq!(count().replacing("Host", &host).send(server.address).status, status, "{host:?}");
    }
    assert_eq!(count().without("Host").send(server.address).status, 400);
    assert_eq!(count().with("Host", "evil.example.com").send(server.address).status, 400);
}

#[test]
fn unlisted_origin_is_rejected() {
    let origins = vec!["https://ide.example.com:443".to_owned(), "http://localhost:3000".to_owned()];
    let open = TestServer::start(settings());
    let named = TestServer::start(ServeOptions { allowed_origins: origins, ..settings() });
    let cases = [
        ("https://ide.example.com", 200),
        ("HTTPS://IDE.example.com:443", 200),
        ("http://localhost:3000", 200),
        ("http://localhost:3001", 403),
        ("http://localhost", 403),
        ("http://ide.example.com", 403),
        ("https://ide.example.com:8443", 403),
        ("https://ide.example.com.evil.example.com", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        ("nonsense", 403),
    ];
    for (origin, status) in cases {
        assert_eq!(count().with("Origin", origin).send(named.address).status, status, "{origin:?}");
        assert_eq!(count().with("Origin", origin).send(open.address).status, 403, "{origin:?}");
    }
    // Programs send no `Origin`.
    assert_eq!(count().send(named.address).status, 200);
    let twice = count().with("Origin", "http://localhost:3000").with("Origin", "http://evil.example.com");
    assert_eq!(twice.send(named.address).status, 400);
}

#[test]
fn unauthorized_request_reveals_nothing() {
    let server = TestServer::start(settings());
    let missing = count().without("Authorization").send(server.address);
    let wrong =
        count().replacing("Authorization", "Bearer correct-horse-battery-stapler").send(server.address);
    for refused in [&missing, &wrong] {
        assert_eq!(refused.status, 401);
        assert!(refused.body.contains("hint: ") && refused.body.contains("dispatcher setup"), "{refused:?}");
        assert!(refused.head.contains("www-authenticate: bearer"), "{refused:?}");
        assert_eq!(refused.body, missing.body);
    }
    let right = count().send(server.address);
    assert_eq!((right.status, server.started()), (200, 1));
    for health in ["GET /healthz HTTP/1.1", "GET /readyz HTTP/1.1"] {
        assert_eq!(Request::get(health).with("Host", "10.0.0.7:8750").send(server.address).status, 200);
    }
}

#[test]
fn token_rotation_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let server = TestServer::start(ServeOptions { tokens: TokenSource::File(file.clone()), ..settings() });
    let status = |token: &str| {
        count().replacing("Authorization", &format!("Bearer {token}")).send(server.address).status
    };
    assert_eq!(status(TOKEN), 200);
    std::fs::write(&file, "another-token-of-good-length").unwrap();
    assert_eq!((status(TOKEN), status("another-token-of-good-length")), (401, 200));
    std::fs::remove_file(&file).unwrap();
    assert_eq!((status(TOKEN), status("x")), (503, 503));
    assert_eq!(Request::get("GET /readyz HTTP/1.1").with("Host", "x").send(server.address).status, 503);
}

#[test]
fn non_loopback_address_requires_configured_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve-token");
    dispatcher::serve::own_token::create_if_missing(&file).unwrap();
    for (address, refused) in [
        ("127.0.0.1:0", false),
        ("127.9.9.9:0", false),
        ("[::1]:0", false),
        ("[::ffff:127.0.0.1]:0", false),
        ("0.0.0.0:0", true),
        ("[::]:0", true),
        ("10.0.0.1:0", true),
        ("[::ffff:10.0.0.1]:0", true),
    ] {
        let tokens = TokenSource::Own(file.clone());
        let open = ServeOptions { address: address.parse().unwrap(), tokens, ..settings() };
        match check(&open) {
            Ok(()) => assert!(!refused, "{address}"),
            Err(problem) => {
                assert!(refused && problem.exit_code() == 78, "{address}: {problem}");
                let hint = dispatcher::task::advice::render_for_cli(problem.hint());
                assert!(hint.contains("--token-file"), "{hint}");
            }
        }
        assert!(check(&ServeOptions { tokens: TokenSource::Inline(TOKEN.into()), ..open }).is_ok());
    }
}

#[test]
fn both_eras_are_served_unless_headers_contradict_body() {
    let server = TestServer::start(settings());
    let modern = || Request::modern_tool("count", &json!({}));
    assert_eq!(count().send(server.address).json()["result"]["content"][0]["text"], "1");
    assert_eq!(modern().send(server.address).json()["result"]["content"][0]["text"], "2");
    for (header, value) in
        [("Mcp-Method", "tools/list"), ("Mcp-Name", "hold"), ("MCP-Protocol-Version", "2025-11-25")]
    {
        let refused = modern().replacing(header, value).send(server.address);
        assert_eq!(refused.status, 400, "{header}: {refused:?}");
        assert_eq!(modern().without(header).send(server.address).status, 400, "{header}");
    }
    assert_eq!(count().replacing("MCP-Protocol-Version", "1999-01-01").send(server.address).status, 400);
    let mut read = count();
    read.line = "GET /mcp HTTP/1.1";
    let refused = read.send(server.address);
    assert!(refused.status == 405 && refused.head.contains("allow: post"), "{refused:?}");
    assert_eq!(server.started(), 2);
}
