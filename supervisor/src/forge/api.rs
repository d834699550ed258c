//! Requests: one at a time, with a bound on each and on all attempts together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use octocrab::Octocrab;
use octocrab::service::middleware::retry::RetryConfig;
use orchestrator_contract::http_url;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::{ForgeError, RetryPolicy, TokenSource};

/// How many redirects are followed; a renamed repository needs one.
const REDIRECTS: u32 = 5;

/// The longest of the host's words that are repeated.
const MESSAGE_MAX: usize = 400;

/// What is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Method {
    Get,
    Post,
    Patch,
}

/// The interface of one host.
pub(super) struct Api {
    base: String,
    token: TokenSource,
    patience: RetryPolicy,
    /// With the token that it was made for: making one reads the system's certificates.
    client: Mutex<Option<(SecretString, Octocrab)>>,
}

/// What the host answered.
pub(super) struct ApiResponse {
    status: u16,
    location: Option<String>,
    retry_after: Option<Duration>,
    body: String,
}

impl Api {
    pub(super) fn new(base: &str, token: TokenSource, patience: RetryPolicy) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), token, patience, client: Mutex::new(None) }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn patience(&self) -> RetryPolicy {
        self.patience
    }

    pub(super) fn retries(&self) -> Retries {
        let RetryPolicy { retries, first_wait, .. } = self.patience;
        Retries { end: Instant::now() + retries, next: first_wait }
    }

    /// Asks until there is an answer. Only for what may be asked twice.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
        subject: &str,
    ) -> Result<T, ForgeError> {
        let mut retries = self.retries();
        loop {
            let answer = self.send_once(method, path, body).await;
            match answer.and_then(|answer| answer.parse(subject)) {
                Err(failure @ ForgeError::Unavailable { retry_after, .. }) => {
                    retries.wait(retry_after, failure).await?;
                }
                decided => return decided,
            }
        }
    }

    /// Asks once, following redirects within the host.
    pub(super) async fn send_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<ApiResponse, ForgeError> {
        let client = self.client()?;
        let mut uri = format!("{}{path}", self.base);
        for _ in 0..REDIRECTS {
            let answer = timeout(self.patience.request, send(&client, method, &uri, body)).await;
            let answer = answer
                .unwrap_or_else(|_| Err(format!("no answer within {} s", self.patience.request.as_secs())));
            let unavailable = |why| ForgeError::Unavailable { why, retry_after: None, refused: false };
            let answer = answer.map_err(unavailable)?;
            match (&answer.location, answer.status) {
                (Some(location), 301 | 302 | 307 | 308) => uri = self.within_host(location)?,
                _ => return Ok(answer),
            }
        }
        Err(ForgeError::Refused { status: 310, message: "it redirects without end".to_owned() })
    }

    /// A redirect's target, if it is on this very scheme, host and port.
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
        let host = host(location).unwrap_or_else(|| "no address".to_owned());
        Err(ForgeError::OtherHost { host })
    }

    /// A client with the token as it is now.
    fn client(&self) -> Result<Octocrab, ForgeError> {
        let token = (self.token)().ok_or(ForgeError::TokenMissing)?;
        let token = SecretString::from(token.expose_secret().trim());
        if token.expose_secret().is_empty() {
            return Err(ForgeError::TokenMissing);
        }
        // octocrab panics at a token that cannot be sent.
        if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "it has characters that no token has".to_owned();
            return Err(ForgeError::Authentication { message });
        }
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_for, client)) = known.as_ref()
            && made_for.expose_secret() == token.expose_secret()
        {
            return Ok(client.clone());
        }
        let invalid = |what: &str| ForgeError::Refused { status: 0, message: format!("{what} is not valid") };
        let limit = Some(self.patience.request);
        let client = Octocrab::builder()
            .base_uri(self.base.as_str())
            .map_err(|_| invalid("the address of the interface"))?
            .personal_token(token.clone())
            // Its own retries repeat a POST and ignore Retry-After.
            .add_retry_config(RetryConfig::None)
            .set_connect_timeout(limit)
            .set_read_timeout(limit)
            .set_write_timeout(limit)
            .build()
            .map_err(|_| invalid("the token or the certificate store"))?;
        *known = Some((token, client.clone()));
        Ok(client)
    }
}

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
    // Its own text holds a backtrace, and may hold headers.
    let response = response.map_err(|error| format!("the request failed ({})", root_cause(&error)))?;
    let status = response.status().as_u16();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let location = header("location");
    let seconds = header("retry-after").and_then(|value| value.trim().parse().ok());
    // Until when is told by the clock of the host, so its own time is what to compare with.
    let used_up = header("x-ratelimit-remaining").is_some_and(|left| left.trim() == "0");
    let retry_after = seconds.map(Duration::from_secs).or(used_up.then(|| Duration::from_secs(60)));
    let body = client
        .body_to_string(response)
        .await
        .map_err(|error| format!("the answer was cut off ({})", root_cause(&error)))?;
    Ok(ApiResponse { status, location, retry_after, body })
}

/// The innermost cause of an error, in a line.
fn root_cause(error: &octocrab::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}

impl ApiResponse {
    /// The answer as a value, or why there is none.
    pub(super) fn parse<T: DeserializeOwned>(self, subject: &str) -> Result<T, ForgeError> {
        let Self { status, location: _, retry_after, body } = self;
        let message = message(&body);
        let limited = || retry_after.is_some() || message.to_lowercase().contains("rate limit");
        match status {
            200..=299 => serde_json::from_str(&body).map_err(|error| ForgeError::Unavailable {
                why: format!("an answer that is not understood ({error})"),
                retry_after,
                refused: false,
            }),
            401 => Err(ForgeError::Authentication { message }),
            403 | 429 if status == 429 || limited() => Err(ForgeError::Unavailable {
                why: format!("it limits requests: {message}"),
                retry_after,
                refused: true,
            }),
            403 => Err(ForgeError::PermissionDenied { subject: subject.to_owned(), message }),
            404 | 410 => Err(ForgeError::NotFound { subject: subject.to_owned() }),
            500..=599 => Err(ForgeError::Unavailable {
                why: format!("it answers with status {status}: {message}"),
                retry_after,
                refused: false,
            }),
            _ => Err(ForgeError::Refused { status, message }),
        }
    }
}

/// The host's words in an answer: its message, and what it says about each fault.
fn message(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let mut words: Vec<&str> = value.get("message").and_then(|text| text.as_str()).into_iter().collect();
    let faults = value.get("errors").and_then(|errors| errors.as_array());
    for fault in faults.into_iter().flatten() {
        words.extend(fault.as_str().or_else(|| fault.get("message").and_then(|text| text.as_str())));
    }
    if words.is_empty() { "no message".to_owned() } else { one_line(&words.join(": ")) }
}

fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(MESSAGE_MAX).collect()
}

/// A bound on attempts, by time.
pub(super) struct Retries {
    end: Instant,
    next: Duration,
}

impl Retries {
    /// Waits before the next attempt: as long as the host asks, else twice as long each
    /// time. Gives the failure back if that is longer than there is time.
    pub(super) async fn wait(
        &mut self,
        asked: Option<Duration>,
        failure: ForgeError,
    ) -> Result<(), ForgeError> {
        let wait = asked.unwrap_or(self.next).max(self.next);
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
