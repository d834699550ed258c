//! The loopback proxy that adds the model credential to the agent's requests.
//!
//! Every process that the agent starts inherits the CLI's environment. That environment
//! therefore holds only a random token, new for each session, that is valid for this gateway
//! alone. The supervisor keeps the credential and reads it again for each request. Bodies are
//! streamed in both directions.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{ModelAuth, ProcessEnv, SecretSource};
use crate::process::Environment;
use crate::tls::{CertificatePaths, RootCertificatesError};

/// Default of `ANTHROPIC_BASE_URL`.
const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// Connection timeout; not longer than the CLI's own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The header that carries an API key (<https://docs.anthropic.com/en/api/overview#authentication>).
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Hop-by-hop headers, not forwarded (RFC 9110, section 7.6.1).
const HOP_BY_HOP_HEADERS: [&str; 9] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An open gateway; dropping it closes the port.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    token: String,
    variable: &'static str,
    _open: DropGuard,
}

/// Why a gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// `ANTHROPIC_BASE_URL` is not a URL.
    #[error("invalid ANTHROPIC_BASE_URL `{url}`")]
    BaseUrl {
        url: String,
        #[source]
        source: url::ParseError,
    },
    /// The trusted certificate authorities cannot be read.
    #[error(transparent)]
    RootCertificates(RootCertificatesError),
    /// No loopback port is available.
    #[error("cannot listen on the loopback address")]
    Listen(#[source] std::io::Error),
    /// The HTTP client cannot be built: an invalid proxy address or certificate.
    #[error("cannot build the client for the model API")]
    Client(#[source] reqwest::Error),
    /// The file of `NODE_EXTRA_CA_CERTS` cannot be read or parsed.
    #[error("cannot load the certificates in `{0}`")]
    Certificates(String),
}

/// Returns the certificates that the CLI would trust without the gateway.
///
/// # Errors
/// Returns an error if the file of `NODE_EXTRA_CA_CERTS` is invalid, or if `needed` and there are
/// no certificates at all.
fn trusted_certificates(
    process_env: &ProcessEnv,
    needed: bool,
) -> Result<Vec<reqwest::Certificate>, GatewayError> {
    let mut certificates = match process_env.text("NODE_EXTRA_CA_CERTS").filter(|file| !file.is_empty()) {
        None => Vec::new(),
        Some(file) => std::fs::read(file)
            .ok()
            .and_then(|text| reqwest::Certificate::from_pem_bundle(&text).ok())
            .ok_or_else(|| GatewayError::Certificates(file.to_owned()))?,
    };
    match CertificatePaths::from_env(|name| process_env.text(name)).root_certificates() {
        Ok(roots) => {
            certificates.extend(roots.iter().filter_map(|root| reqwest::Certificate::from_der(root).ok()));
        }
        Err(error) if needed && certificates.is_empty() => return Err(GatewayError::RootCertificates(error)),
        Err(_) => {}
    }
    Ok(certificates)
}

struct GatewayState {
    token: String,
    base_url: String,
    /// Scheme, host and port of `base_url`; no other server receives the credential.
    origin: url::Origin,
    extra_headers: HeaderMap,
    secrets: SecretSource,
    client: reqwest::Client,
    closed: CancellationToken,
}

impl Gateway {
    /// Opens a gateway that adds the model credential of `secrets`.
    ///
    /// Returns `None` for Bedrock and Vertex, where the CLI signs requests itself. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// Returns an error if no port is available, or if a certificate or proxy of the environment
    /// is invalid.
    pub fn open(secrets: &SecretSource, auth: &ModelAuth) -> Result<Option<Self>, GatewayError> {
        let variable = match auth {
            ModelAuth::ApiKey(_) => "ANTHROPIC_API_KEY",
            ModelAuth::Bearer(_) => "ANTHROPIC_AUTH_TOKEN",
            ModelAuth::OAuth(_) => "CLAUDE_CODE_OAUTH_TOKEN",
            ModelAuth::CloudSigned => return Ok(None),
        };
        let process_env = secrets.process_env();
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would send the credential to another host.
            .redirect(reqwest::redirect::Policy::none());
        let base_url = process_env.text("ANTHROPIC_BASE_URL").filter(|url| !url.is_empty());
        let base_url = base_url.unwrap_or(DEFAULT_BASE_URL).trim_end_matches('/').to_owned();
        let origin = url::Url::parse(&base_url)
            .map_err(|source| GatewayError::BaseUrl { url: base_url.clone(), source })?;
        client = client.tls_certs_only(trusted_certificates(process_env, origin.scheme() == "https")?);
        let token = format!("pass-{}", uuid::Uuid::new_v4().simple());
        let closed = CancellationToken::new();
        let state = GatewayState {
            closed: closed.clone(),
            token: token.clone(),
            origin: origin.origin(),
            base_url,
            extra_headers: parse_headers(process_env.text("ANTHROPIC_CUSTOM_HEADERS").unwrap_or_default()),
            secrets: secrets.clone(),
            client: client.build().map_err(GatewayError::Client)?,
        };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(GatewayError::Listen)?;
        listener.set_nonblocking(true).map_err(GatewayError::Listen)?;
        let address = listener.local_addr().map_err(GatewayError::Listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(GatewayError::Listen)?;
        let routes = axum::Router::new().fallback(forward).with_state(Arc::new(state));
        let open = closed.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, routes) => drop(served),
                () = closed.cancelled() => {}
            }
        });
        Ok(Some(Self { address, token, variable, _open: open }))
    }

    /// Replaces the credential and the base URL in `environment` with those of the gateway.
    pub fn replace_credential(&self, environment: &mut Environment) {
        for name in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_CUSTOM_HEADERS",
            "CLAUDE_CODE_OAUTH_TOKEN",
        ] {
            environment.remove(std::ffi::OsStr::new(name));
        }
        environment.insert(self.variable.into(), self.token.clone().into());
        environment.insert("ANTHROPIC_BASE_URL".into(), format!("http://{}", self.address).into());
        // Requests to the gateway must bypass any proxy.
        for name in ["NO_PROXY", "no_proxy"] {
            let existing = environment.get(std::ffi::OsStr::new(name)).filter(|hosts| !hosts.is_empty());
            let mut hosts = existing.map_or_else(Default::default, |existing| {
                let mut hosts = existing.clone();
                hosts.push(",");
                hosts
            });
            hosts.push("127.0.0.1");
            environment.insert(name.into(), hosts);
        }
    }
}

/// Parses `Name: value` lines, as the CLI does; ignores invalid ones.
fn parse_headers(text: &str) -> HeaderMap {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    };
    text.lines().filter_map(header).collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().collect()
}

/// Creates an error in the format of the model API, which the CLI can parse.
fn error_response(status: StatusCode, kind: &str, message: &str) -> Response {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}}).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn forward(State(state): State<Arc<GatewayState>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let key = parts.headers.get(&API_KEY).map(HeaderValue::as_bytes);
    let bearer = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| value.strip_prefix(b"Bearer "));
    // A connection can outlive its gateway.
    if state.closed.is_cancelled() || key.or(bearer) != Some(state.token.as_bytes()) {
        return error_response(StatusCode::UNAUTHORIZED, "authentication_error", "invalid gateway token");
    }
    let Some((name, value)) = credential(&state.secrets) else {
        let message = "cannot read the model credential";
        return error_response(StatusCode::UNAUTHORIZED, "authentication_error", message);
    };
    let mut headers = parts.headers;
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    for name in HOP_BY_HOP_HEADERS {
        headers.remove(name);
    }
    headers.remove(&API_KEY);
    headers.remove(header::AUTHORIZATION);
    headers.extend(state.extra_headers.clone());
    headers.insert(name, value);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = url::Url::parse(&format!("{}{path}", state.base_url)).ok();
    let Some(url) = url.filter(|url| state.origin == url.origin()) else {
        let message = "the request does not address the model API";
        return error_response(StatusCode::BAD_GATEWAY, "api_error", message);
    };
    let mut request = state.client.request(parts.method, url);
    if has_body {
        request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    match request.headers(headers).send().await {
        Ok(upstream) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = upstream.status();
            *response.headers_mut() = upstream.headers().clone();
            for name in HOP_BY_HOP_HEADERS {
                response.headers_mut().remove(name);
            }
            *response.body_mut() = Body::from_stream(upstream.bytes_stream());
            response
        }
        Err(error) => {
            let message =
                format!("cannot reach the model API: {}", crate::failure::error_chain(&error.without_url()));
            error_response(StatusCode::BAD_GATEWAY, "api_error", &message)
        }
    }
}

fn credential(secrets: &SecretSource) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match secrets.model().ok()??.auth {
        ModelAuth::ApiKey(key) => (API_KEY, key.expose_secret().to_owned()),
        ModelAuth::Bearer(token) | ModelAuth::OAuth(token) => {
            (header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        }
        ModelAuth::CloudSigned => return None,
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use secrecy::SecretString;

    use super::*;
    use crate::config::SecretFiles;

    /// Starts a fake model API that records the headers of each request and echoes its body.
    async fn fake_api() -> (String, Arc<Mutex<Vec<HeaderMap>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&seen);
        let echo = move |request: Request| {
            let recorded = Arc::clone(&recorded);
            async move {
                let (parts, body) = request.into_parts();
                let mut headers = parts.headers;
                headers.insert("seen-path", HeaderValue::from_str(&parts.uri.to_string()).unwrap());
                recorded.lock().unwrap().push(headers);
                Response::new(body)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(echo)).await });
        (format!("http://{address}/prefix"), seen)
    }

    fn open(variables: &[(&str, &str)], files: SecretFiles) -> (Gateway, Environment) {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let secrets = SecretSource::new(files, ProcessEnv::from_pairs(variables));
        let model = secrets.model().unwrap().unwrap();
        let gateway = Gateway::open(&secrets, &model.auth).unwrap().unwrap();
        let mut environment = model.environment;
        gateway.replace_credential(&mut environment);
        (gateway, environment)
    }

    fn variable(environment: &Environment, name: &str) -> Option<String> {
        Some(environment.get(std::ffi::OsStr::new(name))?.to_str()?.to_owned())
    }

    async fn request(environment: &Environment, header: &str, value: &str) -> (u16, String) {
        let base = variable(environment, "ANTHROPIC_BASE_URL").unwrap();
        let request = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("{base}/v1/messages?beta=true"));
        let response = request.header(header, value).body("a question").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn gateway_replaces_its_token_with_api_key() {
        let (url, seen) = fake_api().await;
        let variables = [
            ("ANTHROPIC_API_KEY", "sk-the-key"),
            ("ANTHROPIC_BASE_URL", &url),
            ("ANTHROPIC_CUSTOM_HEADERS", "x-team: blue\nnonsense"),
        ];
        let (_gateway, environment) = open(&variables, SecretFiles::default());
        assert!(environment.values().all(|value| !value.to_string_lossy().contains("the-key")));
        assert_eq!(variable(&environment, "ANTHROPIC_CUSTOM_HEADERS"), None);
        let token = variable(&environment, "ANTHROPIC_API_KEY").unwrap();
        assert_eq!(request(&environment, "x-api-key", &token).await, (200, "a question".to_owned()));
        let headers = seen.lock().unwrap().remove(0);
        assert_eq!(headers["x-api-key"], "sk-the-key");
        assert_eq!(headers["x-team"], "blue");
        assert_eq!(headers["content-length"], "10");
        assert_eq!(headers["seen-path"], "/prefix/v1/messages?beta=true");
    }

    #[tokio::test]
    async fn chunked_request_body_is_forwarded() {
        let (url, _seen) = fake_api().await;
        let variables = [("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_BASE_URL", url.as_str())];
        let (_gateway, environment) = open(&variables, SecretFiles::default());
        let token = variable(&environment, "ANTHROPIC_API_KEY").unwrap();
        let base = variable(&environment, "ANTHROPIC_BASE_URL").unwrap();
        let chunks = futures::stream::iter(["in ", "chunks"].map(Ok::<_, std::io::Error>));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(base).header("x-api-key", token).body(reqwest::Body::wrap_stream(chunks));
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), "in chunks");
    }

    #[tokio::test]
    async fn bearer_token_is_sent_in_authorization_header() {
        for name in ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"] {
            let (url, seen) = fake_api().await;
            let (_gateway, environment) =
                open(&[(name, "the-token"), ("ANTHROPIC_BASE_URL", &url)], SecretFiles::default());
            let token = variable(&environment, name).unwrap();
            assert_eq!(request(&environment, "authorization", &format!("Bearer {token}")).await.0, 200);
            assert_eq!(seen.lock().unwrap()[0]["authorization"], "Bearer the-token");
        }
    }

    #[tokio::test]
    async fn request_without_gateway_token_is_unauthorized() {
        let (url, seen) = fake_api().await;
        let (_gateway, environment) =
            open(&[("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_BASE_URL", &url)], SecretFiles::default());
        assert_eq!(request(&environment, "x-api-key", "pass-guessed").await.0, 401);
        assert_eq!(request(&environment, "accept", "anything").await.0, 401);
        assert!(seen.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn rotated_api_key_is_used_for_next_request() {
        let (url, seen) = fake_api().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "first").unwrap();
        let files = SecretFiles { anthropic_api_key_file: Some(file.clone()), ..SecretFiles::default() };
        let (_gateway, environment) = open(&[("ANTHROPIC_BASE_URL", &url)], files);
        let token = variable(&environment, "ANTHROPIC_API_KEY").unwrap();
        request(&environment, "x-api-key", &token).await;
        std::fs::write(&file, "second").unwrap();
        request(&environment, "x-api-key", &token).await;
        let keys: Vec<_> = seen.lock().unwrap().iter().map(|headers| headers["x-api-key"].clone()).collect();
        assert_eq!(keys, ["first", "second"]);
    }

    #[tokio::test]
    async fn unreachable_upstream_returns_502_without_credential() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("http://{closed}");
        let (_gateway, environment) =
            open(&[("ANTHROPIC_API_KEY", "the-key"), ("ANTHROPIC_BASE_URL", &url)], SecretFiles::default());
        let token = variable(&environment, "ANTHROPIC_API_KEY").unwrap();
        let (status, text) = request(&environment, "x-api-key", &token).await;
        assert_eq!(status, 502);
        assert!(text.contains("cannot reach") && !text.contains("the-key"), "{text}");
    }

    #[tokio::test]
    async fn dropped_gateway_closes_port() {
        let (url, _seen) = fake_api().await;
        let (gateway, environment) =
            open(&[("ANTHROPIC_API_KEY", "k"), ("ANTHROPIC_BASE_URL", &url)], SecretFiles::default());
        drop(gateway);
        let base = variable(&environment, "ANTHROPIC_BASE_URL").unwrap();
        let address: SocketAddr = base.trim_start_matches("http://").parse().unwrap();
        let limit = Duration::from_secs(10);
        let closed = async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(limit, closed).await.expect("the port was not closed");
    }

    #[test]
    fn cloud_signed_auth_opens_no_gateway() {
        let secrets = SecretSource::new(SecretFiles::default(), ProcessEnv::from_pairs(&[]));
        assert!(Gateway::open(&secrets, &ModelAuth::CloudSigned).unwrap().is_none());
        let key = ModelAuth::ApiKey(SecretString::from("k"));
        assert!(!format!("{key:?}").contains("\"k\""));
    }

    #[test]
    fn gateway_host_is_added_to_no_proxy() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let (gateway, mut environment) = open(&[("ANTHROPIC_API_KEY", "k")], SecretFiles::default());
        environment.insert("NO_PROXY".into(), "example.com".into());
        gateway.replace_credential(&mut environment);
        assert_eq!(variable(&environment, "NO_PROXY").as_deref(), Some("example.com,127.0.0.1"));
    }
}
