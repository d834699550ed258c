//! Requests to the REST API, with a timeout for each and for all attempts together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, Uri, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use octocrab::service::middleware::auth_header::AuthHeaderLayer;
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, Octocrab, OctocrabBuilder};
use orchestrator_contract::http_url;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::error::ForgeError;
use crate::tls::{CertificatePaths, config_without_roots};

/// Reads the token; called for each use, so that it can be rotated.
pub type TokenSource = Arc<dyn Fn() -> Option<SecretString> + Send + Sync>;

/// Timeouts and waits.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Timeout for one request, including its response.
    pub request: Duration,
    /// Timeout for all attempts of one call.
    pub retries: Duration,
    /// Wait before the second attempt; doubled each time.
    pub first_wait: Duration,
    /// Timeout until the pull request shows the pushed commit.
    pub catch_up: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            retries: Duration::from_secs(60),
            first_wait: Duration::from_secs(1),
            // A delay of 50 s was observed on GitHub.
            catch_up: Duration::from_secs(90),
        }
    }
}

/// Maximum redirects to follow; a renamed repository needs one.
const MAX_REDIRECTS: u32 = 5;

/// Maximum characters of a message from the host.
const MAX_MESSAGE_CHARS: usize = 400;

/// HTTP method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Method {
    Get,
    Post,
    Patch,
}

/// REST API of one host.
pub(super) struct Api {
    base: String,
    token: TokenSource,
    certificates: CertificatePaths,
    policy: RetryPolicy,
    /// Cached with its token, because creating a client reads the root certificates.
    client: Mutex<Option<(SecretString, Octocrab)>>,
}

/// Response of the host.
pub(super) struct ApiResponse {
    status: u16,
    location: Option<String>,
    retry_after: Option<Duration>,
    body: String,
}

impl Api {
    pub(super) fn new(
        base: &str,
        token: TokenSource,
        certificates: CertificatePaths,
        policy: RetryPolicy,
    ) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { base, token, certificates, policy, client: Mutex::new(None) }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn policy(&self) -> RetryPolicy {
        self.policy
    }

    pub(super) fn retries(&self) -> Retries {
        let RetryPolicy { retries, first_wait, .. } = self.policy;
        Retries { end: Instant::now() + retries, next: first_wait }
    }

    /// Sends an idempotent request, with retries while the host is unavailable.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
        subject: &str,
    ) -> Result<T, ForgeError> {
        let mut retries = self.retries();
        loop {
            let response = self.send_once(method, path, body).await;
            match response.and_then(|response| response.parse(subject)) {
                Err(failure @ ForgeError::Unavailable { retry_after, .. }) => {
                    retries.wait(retry_after, failure).await?;
                }
                result => return result,
            }
        }
    }

    /// Sends a request once, following redirects within the host.
    pub(super) async fn send_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<ApiResponse, ForgeError> {
        let client = self.client()?;
        let mut uri = format!("{}{path}", self.base);
        for _ in 0..MAX_REDIRECTS {
            let response = timeout(self.policy.request, send(&client, method, &uri, body)).await;
            let response = response
                .unwrap_or_else(|_| Err(format!("no response within {} s", self.policy.request.as_secs())));
            let unavailable = |why| ForgeError::Unavailable { why, retry_after: None, refused: false };
            let response = response.map_err(unavailable)?;
            match (&response.location, response.status) {
                (Some(location), 301 | 302 | 307 | 308) => uri = self.within_host(location)?,
                _ => return Ok(response),
            }
        }
        Err(ForgeError::TooManyRedirects { limit: MAX_REDIRECTS })
    }

    /// Returns the target of a redirect if it has the same scheme, host and port.
    fn within_host(&self, location: &str) -> Result<String, ForgeError> {
        let base = http_url::parse(&self.base);
        let origin = base.as_ref().map(|base| base.origin().ascii_serialization());
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(format!("{}{location}", origin.unwrap_or_default()));
        }
        let target = http_url::parse(location);
        if target.as_ref().is_some_and(|target| Some(target.origin().ascii_serialization()) == origin) {
            return Ok(location.to_owned());
        }
        let host = host(location).unwrap_or_else(|| format!("`{location}`"));
        Err(ForgeError::OtherHost { host })
    }

    /// Returns a client for the current token.
    fn client(&self) -> Result<Octocrab, ForgeError> {
        let token = (self.token)().ok_or(ForgeError::TokenMissing)?;
        let token = SecretString::from(token.expose_secret().trim());
        if token.expose_secret().is_empty() {
            return Err(ForgeError::TokenMissing);
        }
        // octocrab panics if the token is not a valid header value.
        if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "invalid character in the token".to_owned();
            return Err(ForgeError::Authentication { message });
        }
        let mut cached = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((client_token, client)) = cached.as_ref()
            && client_token.expose_secret() == token.expose_secret()
        {
            return Ok(client.clone());
        }
        let client = self.build_client(&token)?;
        *cached = Some((token, client.clone()));
        Ok(client)
    }

    /// Builds a client that trusts the configured roots and sends the token to this host only.
    ///
    /// Unlike octocrab's default client it has no retries, which would repeat a POST.
    fn build_client(&self, token: &SecretString) -> Result<Octocrab, ForgeError> {
        let invalid = |message: String| ForgeError::Client { message };
        if http_url::parse_secure(&self.base).is_none() {
            return Err(invalid("the API URL is neither an https URL nor one of this machine".to_owned()));
        }
        let base: Uri = self.base.parse().map_err(|_| invalid("invalid API URL".to_owned()))?;
        let tls = if base.scheme_str() == Some("https") {
            self.certificates.client_config().map_err(|error| invalid(error.to_string()))?
        } else {
            config_without_roots()
        };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
        let mut authorization = authorization.map_err(|_| invalid("invalid token".to_owned()))?;
        authorization.set_sensitive(true);
        let agent = (header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let built: Result<Octocrab, std::convert::Infallible> = OctocrabBuilder::new_empty()
            .with_service(Client::builder(TokioExecutor::new()).build(connector))
            .with_layer(&ExtraHeadersLayer::new(Arc::new(vec![agent])))
            .with_layer(&BaseUriLayer::new(base.clone()))
            .with_layer(&AuthHeaderLayer::new(Some(authorization), base.clone(), base))
            .with_auth(AuthState::None)
            .build();
        Ok(built.unwrap_or_else(|never| match never {}))
    }
}

/// Identifies the supervisor; GitHub rejects requests without it.
const USER_AGENT: &str = "orchestrator-supervisor";

async fn send(
    client: &Octocrab,
    method: Method,
    uri: &str,
    body: Option<&serde_json::Value>,
) -> Result<ApiResponse, String> {
    let response = match method {
        Method::Get => client._get(uri).await,
        Method::Post => client._post(uri, body).await,
        Method::Patch => client._patch(uri, body).await,
    };
    // The text of an octocrab error has a backtrace and may have headers.
    let response = response.map_err(|error| format!("the request failed ({})", root_cause(&error)))?;
    let status = response.status().as_u16();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let location = header("location");
    let seconds = header("retry-after").and_then(|value| value.trim().parse().ok());
    // The reset time is in the clock of the host, which may differ from the local one.
    let used_up = header("x-ratelimit-remaining").is_some_and(|left| left.trim() == "0");
    let retry_after = seconds.map(Duration::from_secs).or(used_up.then(|| Duration::from_secs(60)));
    let body = client
        .body_to_string(response)
        .await
        .map_err(|error| format!("the response was incomplete ({})", root_cause(&error)))?;
    Ok(ApiResponse { status, location, retry_after, body })
}

/// Returns the innermost cause of an error in one line.
fn root_cause(error: &octocrab::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}

impl ApiResponse {
    /// Parses a successful response; returns an error for any other.
    pub(super) fn parse<T: DeserializeOwned>(self, subject: &str) -> Result<T, ForgeError> {
        let Self { status, location: _, retry_after, body } = self;
        let message = message(&body);
        let limited = || retry_after.is_some() || message.to_lowercase().contains("rate limit");
        match status {
            200..=299 => serde_json::from_str(&body).map_err(|error| ForgeError::Unavailable {
                why: format!("invalid response ({error})"),
                retry_after,
                refused: false,
            }),
            401 => Err(ForgeError::Authentication { message }),
            403 | 429 if status == 429 || limited() => Err(ForgeError::Unavailable {
                why: format!("rate limit: {message}"),
                retry_after,
                refused: true,
            }),
            403 => Err(ForgeError::PermissionDenied { subject: subject.to_owned(), message }),
            404 | 410 => Err(ForgeError::NotFound { subject: subject.to_owned() }),
            500..=599 => Err(ForgeError::Unavailable {
                why: format!("status {status}: {message}"),
                retry_after,
                refused: false,
            }),
            _ => Err(ForgeError::Refused { status, message }),
        }
    }
}

/// Returns the message of a response, with those of its `errors`.
fn message(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let mut messages: Vec<&str> = value.get("message").and_then(|text| text.as_str()).into_iter().collect();
    let faults = value.get("errors").and_then(|errors| errors.as_array());
    for fault in faults.into_iter().flatten() {
        messages.extend(fault.as_str().or_else(|| fault.get("message").and_then(|text| text.as_str())));
    }
    if messages.is_empty() { "no message".to_owned() } else { one_line(&messages.join(": ")) }
}

fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(MAX_MESSAGE_CHARS).collect()
}

/// Retries of one call, limited by time.
pub(super) struct Retries {
    end: Instant,
    next: Duration,
}

impl Retries {
    /// Waits before the next attempt, at least as long as the host requests.
    ///
    /// The wait doubles each time. Returns the failure if it would exceed the timeout.
    pub(super) async fn wait(
        &mut self,
        retry_after: Option<Duration>,
        failure: ForgeError,
    ) -> Result<(), ForgeError> {
        let wait = retry_after.unwrap_or(self.next).max(self.next);
        if Instant::now() + wait > self.end {
            return Err(failure);
        }
        sleep(wait).await;
        self.next *= 2;
        Ok(())
    }
}

/// Returns the host of a URL, without the port; `None` if programs may read it differently.
pub(super) fn host(url: &str) -> Option<String> {
    http_url::parse(url)?.host_str().map(str::to_owned)
}

pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(format!("%{byte:02X}").chars());
        }
    }
    encoded
}
