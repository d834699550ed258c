//! The gateway as a server, with a fake model API behind it.

use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::{ProcessEnv, SecretFiles};

/// A request that the fake API received.
#[derive(Clone, Debug)]
struct Seen {
    headers: HeaderMap,
    target: String,
    body: Value,
}

type AllSeen = Arc<Mutex<Vec<Seen>>>;

/// Starts a fake model API that records each request and answers with `usage`, or as `respond` wants.
async fn fake_api_with(
    respond: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static,
) -> (String, AllSeen) {
    let seen = AllSeen::default();
    let recorded = Arc::clone(&seen);
    let handler = move |request: Request| {
        let (recorded, respond) = (Arc::clone(&recorded), respond.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let response = respond(&body);
            recorded.lock().unwrap().push(Seen {
                headers: parts.headers,
                target: parts.uri.to_string(),
                body,
            });
            response
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    (format!("http://{address}/prefix"), seen)
}

fn message(body: &Value, input: u64, output: u64) -> Response {
    let usage = json!({"input_tokens": input, "output_tokens": output});
    let message = json!({"type": "message", "model": body["model"], "content": [], "usage": usage});
    let mut response = Response::new(Body::from(message.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

async fn fake_api() -> (String, AllSeen) {
    fake_api_with(|body| message(body, 10, 5)).await
}

struct Opened {
    gateway: Gateway,
    environment: Environment,
    spending: Spending,
}

fn open_with(variables: &[(&str, &str)], files: SecretFiles, limit: Option<f64>) -> Opened {
    open_at(ListenPlace::Loopback, variables, files, limit)
}

fn open_at(place: ListenPlace, variables: &[(&str, &str)], files: SecretFiles, limit: Option<f64>) -> Opened {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let secrets = SecretSource::new(files, ProcessEnv::from_pairs(variables));
    let model = secrets.model().unwrap().unwrap();
    let spending = Spending::new(limit, None);
    let allowance = Allowance { spending: &spending, conversation: "c", model: "sonnet" };
    let gateway = Gateway::open(&secrets, &model.auth, allowance, &place).unwrap().unwrap();
    let mut environment = model.environment;
    gateway.replace_credential(&mut environment);
    Opened { gateway, environment, spending }
}

fn open(url: &str, limit: Option<f64>) -> Opened {
    open_with(
        &[("ANTHROPIC_API_KEY", "sk-the-key"), ("ANTHROPIC_BASE_URL", url)],
        SecretFiles::default(),
        limit,
    )
}

/// Returns the address of a gateway on the loopback interface.
fn address_of(opened: &Opened) -> String {
    opened.gateway.endpoint.to_string()
}

fn variable(environment: &Environment, name: &str) -> Option<String> {
    Some(environment.get(std::ffi::OsStr::new(name))?.to_str()?.to_owned())
}

fn question() -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]})
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn post(opened: &Opened, header: (&str, &str), body: &Value) -> (u16, String) {
    let base = variable(&opened.environment, "ANTHROPIC_BASE_URL").unwrap();
    let request = client().post(format!("{base}/v1/messages?beta=true")).header(header.0, header.1);
    let request = request.header("content-type", "application/json").body(body.to_string());
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn ask(opened: &Opened, body: &Value) -> (u16, String) {
    post(opened, ("x-api-key", &opened.gateway.token), body).await
}

#[tokio::test]
async fn gateway_replaces_its_token_with_api_key() {
    let (url, seen) = fake_api().await;
    let variables = [
        ("ANTHROPIC_API_KEY", "sk-the-key"),
        ("ANTHROPIC_BASE_URL", &url),
        ("ANTHROPIC_CUSTOM_HEADERS", "x-team: blue\nnonsense"),
    ];
    let opened = open_with(&variables, SecretFiles::default(), None);
    assert!(opened.environment.values().all(|value| !value.to_string_lossy().contains("the-key")));
    assert_eq!(variable(&opened.environment, "ANTHROPIC_CUSTOM_HEADERS"), None);
    assert_eq!(variable(&opened.environment, "ANTHROPIC_API_KEY").unwrap(), opened.gateway.token);
    assert_eq!(ask(&opened, &question()).await.0, 200);
    let seen = seen.lock().unwrap().remove(0);
    assert_eq!(seen.headers["x-api-key"], "sk-the-key");
    assert_eq!(seen.headers["x-team"], "blue");
    assert_eq!(seen.target, "/prefix/v1/messages?beta=true");
    assert_eq!(seen.body, question());
}

#[tokio::test]
async fn bearer_token_is_sent_in_authorization_header() {
    for name in ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"] {
        let (url, seen) = fake_api().await;
        let opened =
            open_with(&[(name, "the-token"), ("ANTHROPIC_BASE_URL", &url)], SecretFiles::default(), None);
        let bearer = format!("Bearer {}", opened.gateway.token);
        assert_eq!(variable(&opened.environment, name).as_deref(), Some(opened.gateway.token.as_str()));
        assert_eq!(post(&opened, ("authorization", &bearer), &question()).await.0, 200);
        assert_eq!(seen.lock().unwrap()[0].headers["authorization"], "Bearer the-token");
    }
}

#[tokio::test]
async fn request_without_gateway_token_is_unauthorized() {
    let (url, seen) = fake_api().await;
    let opened = open(&url, None);
    assert_eq!(post(&opened, ("x-api-key", "pass-guessed"), &question()).await.0, 401);
    assert_eq!(post(&opened, ("accept", "anything"), &question()).await.0, 401);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn token_of_another_conversation_is_unauthorized() {
    let (url, seen) = fake_api().await;
    let (first, second) = (open(&url, None), open(&url, None));
    assert_eq!(post(&first, ("x-api-key", &second.gateway.token), &question()).await.0, 401);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn rotated_api_key_is_used_for_next_request() {
    let (url, seen) = fake_api().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "first").unwrap();
    let files = SecretFiles { anthropic_api_key_file: Some(file.clone()), ..SecretFiles::default() };
    let opened = open_with(&[("ANTHROPIC_BASE_URL", &url)], files, None);
    ask(&opened, &question()).await;
    std::fs::write(&file, "second").unwrap();
    ask(&opened, &question()).await;
    let keys: Vec<_> = seen.lock().unwrap().iter().map(|seen| seen.headers["x-api-key"].clone()).collect();
    assert_eq!(keys, ["first", "second"]);
}

#[tokio::test]
async fn unreachable_upstream_returns_502_and_costs_nothing() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let opened = open(&format!("http://{closed}"), Some(1.0));
    let (status, text) = ask(&opened, &question()).await;
    assert_eq!(status, 502);
    assert!(text.contains("cannot reach") && !text.contains("the-key"), "{text}");
    assert_eq!(opened.spending.usage().unconfirmed_usd, 0.0);
}

#[tokio::test]
async fn dropped_gateway_closes_port() {
    let (url, _seen) = fake_api().await;
    let opened = open(&url, None);
    let address = address_of(&opened);
    drop(opened);
    let closed = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the port was not closed");
}

#[test]
fn cloud_signed_auth_opens_no_gateway_and_says_so() {
    let secrets = SecretSource::new(SecretFiles::default(), ProcessEnv::from_pairs(&[]));
    let spending = Spending::new(Some(1.0), None);
    let allowance = Allowance { spending: &spending, conversation: "c", model: "sonnet" };
    assert!(
        Gateway::open(&secrets, &ModelAuth::CloudSigned, allowance, &ListenPlace::Loopback)
            .unwrap()
            .is_none()
    );
    assert!(spending.remarks()[0].contains("not behind the gateway"), "{:?}", spending.remarks());
    let key = ModelAuth::ApiKey(SecretString::from("k"));
    assert!(!format!("{key:?}").contains("\"k\""));
}

#[tokio::test]
async fn gateway_on_socket_is_reached_by_it_alone() {
    let (url, seen) = fake_api().await;
    let sockets = tempfile::tempdir().unwrap();
    let variables = [
        ("ANTHROPIC_API_KEY", "sk-the-key"),
        ("ANTHROPIC_BASE_URL", url.as_str()),
        ("ANTHROPIC_UNIX_SOCKET", "/elsewhere"),
    ];
    let place = ListenPlace::Directory(sockets.path().to_owned());
    let opened = open_at(place, &variables, SecretFiles::default(), None);
    let path = variable(&opened.environment, "ANTHROPIC_UNIX_SOCKET").unwrap();
    assert_eq!(Some(std::path::Path::new(&path)), opened.gateway.endpoint.socket());
    let client = reqwest::Client::builder().no_proxy().unix_socket(path).build().unwrap();
    let token = variable(&opened.environment, "ANTHROPIC_API_KEY").unwrap();
    let base = variable(&opened.environment, "ANTHROPIC_BASE_URL").unwrap();
    for (key, status) in [(token.as_str(), 200), ("wrong", 401)] {
        let request = client.post(format!("{base}/v1/messages")).header("x-api-key", key);
        let response = request
            .header("content-type", "application/json")
            .body(question().to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn socket_of_environment_is_not_used() {
    let variables = [("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_UNIX_SOCKET", "/elsewhere")];
    let opened = open_with(&variables, SecretFiles::default(), None);
    assert_eq!(variable(&opened.environment, "ANTHROPIC_UNIX_SOCKET"), None);
}

#[tokio::test]
async fn gateway_host_is_added_to_no_proxy() {
    let mut opened = open("http://127.0.0.1:1", None);
    opened.environment.insert("NO_PROXY".into(), "example.com".into());
    opened.gateway.replace_credential(&mut opened.environment);
    assert_eq!(variable(&opened.environment, "NO_PROXY").as_deref(), Some("example.com,127.0.0.1"));
}

#[tokio::test]
async fn cost_is_counted_from_whole_and_streamed_responses() {
    let stream = concat!(
        "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-sonnet-5-5\",",
        "\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
    );
    let (url, _seen) = fake_api_with(move |body| {
        if body["stream"] != true {
            return message(body, 10, 5);
        }
        let mut response = Response::new(Body::from(stream));
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
        response
    })
    .await;
    let opened = open(&url, Some(1.0));
    let mut streamed = question();
    streamed["stream"] = json!(true);
    streamed["tools"] = json!([{"name": "Bash"}, {"name": "Read"}]);
    for body in [question(), streamed] {
        assert_eq!(ask(&opened, &body).await.0, 200);
    }
    let usage = opened.spending.usage();
    assert_eq!((usage.cost_usd, usage.unconfirmed_usd, usage.turns), (0.00014, 0.0, 1));
    assert_eq!(usage.models["claude-sonnet-5-5"].output_tokens, 10);
    assert_eq!(opened.gateway.spent().turns, 1);
}

#[tokio::test]
async fn cut_response_costs_its_reservation() {
    let (url, _seen) = fake_api_with(|_| {
        let start = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10}}}\n\n";
        let mut response = Response::new(Body::from(start));
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
        response
    })
    .await;
    let opened = open(&url, Some(1.0));
    assert_eq!(ask(&opened, &question()).await.0, 200);
    let usage = opened.spending.usage();
    assert!(usage.cost_usd == 0.0 && usage.unconfirmed_usd > 0.001, "{usage:?}");
}

#[tokio::test]
async fn error_of_api_passes_and_costs_nothing() {
    let (url, _seen) = fake_api_with(|_| {
        let mut response = Response::new(Body::from("{\"type\":\"error\"}"));
        *response.status_mut() = axum::http::StatusCode::from_u16(529).unwrap();
        response.headers_mut().insert("retry-after", HeaderValue::from_static("7"));
        response
    })
    .await;
    let opened = open(&url, Some(1.0));
    assert_eq!(ask(&opened, &question()).await, (529, "{\"type\":\"error\"}".to_owned()));
    assert_eq!(opened.spending.usage().unconfirmed_usd, 0.0);
}

#[tokio::test]
async fn redirect_of_api_is_not_followed_or_passed() {
    let (other, other_seen) = fake_api().await;
    let (url, _seen) = fake_api_with(move |_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = axum::http::StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert("location", HeaderValue::from_str(&other).unwrap());
        response
    })
    .await;
    let opened = open(&url, Some(1.0));
    assert_eq!(ask(&opened, &question()).await.0, 403);
    assert!(other_seen.lock().unwrap().is_empty());
    assert_eq!(opened.spending.usage().unconfirmed_usd, 0.0);
}

#[tokio::test]
async fn request_beyond_the_limit_never_reaches_the_api() {
    let (url, seen) = fake_api().await;
    let opened = open(&url, Some(0.001));
    let mut body = question();
    body["max_tokens"] = json!(32_000);
    let (status, text) = ask(&opened, &body).await;
    assert_eq!(status, 402, "{text}");
    assert!(text.contains("billing_error") && text.contains("cost limit"), "{text}");
    assert!(seen.lock().unwrap().is_empty());
    assert!(opened.gateway.spent().cost_refusal.is_some());
    assert_eq!(opened.spending.usage().refused_requests, 1);
}

#[tokio::test]
async fn output_is_limited_before_it_reaches_the_api() {
    let (url, seen) = fake_api().await;
    let opened = open(&url, Some(0.1));
    let mut body = question();
    body["max_tokens"] = json!(128_000);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 64_000});
    assert_eq!(ask(&opened, &body).await.0, 200);
    let sent = seen.lock().unwrap()[0].body.clone();
    let limit = sent["max_tokens"].as_u64().unwrap();
    assert!((1_024..10_000).contains(&limit), "{sent}");
    assert!(sent["thinking"]["budget_tokens"].as_u64().unwrap() < limit, "{sent}");
}

#[tokio::test]
async fn web_search_in_small_budget_is_refused() {
    let (url, seen) = fake_api().await;
    let mut body = question();
    body["tools"] = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]);
    assert_eq!(ask(&open(&url, Some(0.10)), &body).await.0, 402);
    assert_eq!(ask(&open(&url, Some(2.0)), &body).await.0, 200);
    assert_eq!(ask(&open(&url, None), &body).await.0, 200);
    let uses: Vec<Value> =
        seen.lock().unwrap().iter().map(|seen| seen.body["tools"][0]["max_uses"].clone()).collect();
    assert_eq!(uses, [json!(2), json!(8)]);
}

/// Sends raw bytes and returns the status line of the response; empty if the connection was closed.
async fn raw(opened: &Opened, text: &str) -> String {
    let mut stream = TcpStream::connect(address_of(opened)).await.unwrap();
    stream.write_all(text.replace("TOKEN", &opened.gateway.token).as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await;
    let count = read.expect("an answer or the end").unwrap_or(0);
    String::from_utf8_lossy(&answer[..count]).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn raw_attacks_never_reach_the_api() {
    let (url, seen) = fake_api().await;
    let opened = open(&url, None);
    let head = "x-api-key: TOKEN\r\nhost: x\r\ncontent-type: application/json\r\n";
    let smuggled = "GET /v1/files HTTP/1.1\r\nx-api-key: TOKEN\r\nhost: x\r\n\r\n";
    for (line, more) in [
        ("GET /v1/files HTTP/1.1", String::new()),
        ("DELETE /v1/files/file_1 HTTP/1.1", String::new()),
        ("POST /v1/messages/batches HTTP/1.1", "content-length: 2\r\n\r\n{}".to_owned()),
        ("CONNECT api.anthropic.com:443 HTTP/1.1", String::new()),
        ("POST http://evil.example/v1/messages HTTP/1.1", "content-length: 2\r\n\r\n{}".to_owned()),
        ("POST //evil.example/v1/messages HTTP/1.1", "content-length: 2\r\n\r\n{}".to_owned()),
        ("POST /v1/messages/%2e%2e/files HTTP/1.1", "content-length: 2\r\n\r\n{}".to_owned()),
        (
            "POST /v1/messages HTTP/1.1",
            "connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        ),
        ("POST /v1/messages HTTP/1.1", format!("content-length: 2\r\n\r\n{{}}{smuggled}")),
        (
            "POST /v1/messages HTTP/1.1",
            format!("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "POST /v1/messages HTTP/1.1",
            format!("transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{smuggled}"),
        ),
        ("POST /v1/messages HTTP/1.1", "content-length: -1\r\n\r\n{}".to_owned()),
        ("POST /v1/messages HTTP/1.1", "content-length: 2\r\ncontent-length: 3\r\n\r\n{}".to_owned()),
        ("POST /v1/messages HTTP/9.9", "content-length: 2\r\n\r\n{}".to_owned()),
        ("PRI * HTTP/2.0", "\r\nSM\r\n\r\n".to_owned()),
    ] {
        let end = if more.is_empty() { "\r\n" } else { "" };
        let status = raw(&opened, &format!("{line}\r\n{head}{more}{end}")).await;
        let code = status.split(' ').nth(1).unwrap_or("closed");
        assert!(
            matches!(code, "400" | "403" | "431" | "501" | "505" | "closed"),
            "{line} {more:?}: {status}"
        );
    }
    assert!(seen.lock().unwrap().is_empty(), "{:?}", seen.lock().unwrap());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let (url, _seen) = fake_api().await;
    let opened = open(&url, None);
    let mut held = Vec::new();
    for _ in 0..server::MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address_of(&opened)).await.unwrap();
        // A header that never ends.
        stream.write_all(b"POST /v1/messages HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let mut more = TcpStream::connect(address_of(&opened)).await.unwrap();
    let mut byte = [0];
    let end = tokio::time::timeout(Duration::from_secs(10), more.read(&mut byte)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    drop(held);
    let answered = async {
        while client().get(format!("http://{}/", address_of(&opened))).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.expect("a free connection");
}

#[tokio::test]
async fn conversations_of_a_run_share_the_limit() {
    let (url, _seen) = fake_api_with(|body| message(body, 10, body["max_tokens"].as_u64().unwrap())).await;
    let variables = [("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_BASE_URL", url.as_str())];
    let secrets = SecretSource::new(SecretFiles::default(), ProcessEnv::from_pairs(&variables));
    let auth = secrets.model().unwrap().unwrap().auth;
    let spending = Spending::new(Some(0.2), None);
    let mut opened = Vec::new();
    for conversation in ["first", "second"] {
        let allowance = Allowance { spending: &spending, conversation, model: "sonnet" };
        let gateway = Gateway::open(&secrets, &auth, allowance, &ListenPlace::Loopback).unwrap().unwrap();
        let mut environment = Environment::new();
        gateway.replace_credential(&mut environment);
        opened.push(Opened { gateway, environment, spending: spending.clone() });
    }
    let mut body = question();
    body["max_tokens"] = json!(4_000);
    let mut answered = 0;
    for round in 0..12 {
        let (status, _) = ask(&opened[round % 2], &body).await;
        answered += u32::from(status == 200);
    }
    let total = spending.usage().cost_usd;
    assert!(answered >= 4 && total <= 0.2 && total > 0.15, "{answered} requests, ${total}");
    let each: f64 = ["first", "second"].map(|id| spending.conversation(id).cost_usd).iter().sum();
    assert!((each - total).abs() < 1e-9);
}
