//! Smart HTTP protocol of git, over `ureq` and rustls.

use std::io::{self, Read, Seek as _, Write};

use base64::Engine as _;
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use orchestrator_contract::{Reason, http_url};
use secrecy::ExposeSecret as _;
use tempfile::SpooledTempFile;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, SendBody};
use url::{Origin, ParseError, Url};

use super::advertisement::Advertisement;
use super::operation::{Context, add_bytes, record_failure};

/// Maximum request size kept in memory, in bytes; only pushes exceed it.
const SPOOL_BYTES: usize = 1 << 20;

/// Maximum bytes of a server message to show.
const MAX_MESSAGE_BYTES: u64 = 4096;

pub(super) struct Http {
    agent: Agent,
    context: &'static Context,
}

impl Http {
    pub(super) fn new(context: &'static Context) -> Result<Self, git2::Error> {
        let agent = agent(context).map_err(|error| git2::Error::from_str(&error.to_string()))?;
        Ok(Self { agent, context })
    }

    /// Returns the `Authorization` header, only for the origin that the credential is for.
    fn authorization(&self, url: &str) -> Option<String> {
        let token = self.context.token.as_ref()?;
        if origin(url)? != origin(&self.context.url)? {
            return None;
        }
        let user = self.context.username.as_deref().unwrap_or("x-access-token");
        let pair = format!("{user}:{}", token.expose_secret());
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }
}

/// Returns scheme, host and port; `None` if programs may read the host differently, or if the network could
/// read the credential.
fn origin(url: &str) -> Option<Origin> {
    http_url::parse_secure(url).map(|url| url.origin())
}

fn agent(context: &Context) -> io::Result<Agent> {
    // Fails if a provider is installed, which is then the same one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut builder = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent("git/2.0 (orchestrator supervisor)")
        .timeout_connect(Some(context.connect_timeout))
        .timeout_resolve(Some(context.connect_timeout))
        .timeout_per_read(Some(context.read_timeout))
        .timeout_per_write(Some(context.read_timeout))
        .proxy(proxy(context)?);
    if context.url.starts_with("https:") {
        builder = builder.tls_config(TlsConfig::builder().root_certs(root_certificates(context)?).build());
    }
    Ok(builder.build().new_agent())
}

fn proxy(context: &Context) -> io::Result<Option<Proxy>> {
    let Some(url) = &context.proxy else { return Ok(None) };
    let excluded = context.no_proxy.as_deref().unwrap_or_default();
    // No credential depends on the host here, so it need not be unambiguous.
    let host = url::Url::parse(&context.url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let host = host.unwrap_or_default();
    if excluded.split(',').map(str::trim).any(|rule| no_proxy_matches(rule, &host)) {
        return Ok(None);
    }
    // Do not show the proxy URL: it may contain a password.
    Proxy::new(url).map(Some).map_err(|_| record_failure(Reason::InvalidConfiguration, "invalid proxy URL"))
}

/// Returns whether a `NO_PROXY` rule matches a host or one of its parent domains.
fn no_proxy_matches(rule: &str, host: &str) -> bool {
    let rule = rule.to_ascii_lowercase();
    let domain = rule.trim_start_matches('*').trim_start_matches('.');
    rule == "*"
        || (!domain.is_empty()
            && (host == domain || host.strip_suffix(domain).is_some_and(|h| h.ends_with('.'))))
}

fn root_certificates(context: &Context) -> io::Result<RootCerts> {
    let roots = context
        .certificates
        .root_certificates()
        .map_err(|error| record_failure(Reason::InvalidConfiguration, error.to_string()))?;
    Ok(roots.iter().map(|root| Certificate::from_der(root).to_owned()).into())
}

impl SmartSubtransport for Http {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let base = url.trim_end_matches('/');
        let (service, advertises) = match action {
            Service::UploadPackLs => ("git-upload-pack", true),
            Service::UploadPack => ("git-upload-pack", false),
            Service::ReceivePackLs => ("git-receive-pack", true),
            Service::ReceivePack => ("git-receive-pack", false),
        };
        let exchange = PendingRequest {
            agent: self.agent.clone(),
            authorization: self.authorization(base),
            url: if advertises {
                format!("{base}/info/refs?service={service}")
            } else {
                format!("{base}/{service}")
            },
            service,
            advertises,
            request: SpooledTempFile::new(SPOOL_BYTES),
            response: None,
        };
        if advertises { Ok(Box::new(Advertisement::new(exchange))) } else { Ok(Box::new(exchange)) }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// HTTP request that is sent when its response is first read.
struct PendingRequest {
    agent: Agent,
    authorization: Option<String>,
    url: String,
    service: &'static str,
    advertises: bool,
    request: SpooledTempFile,
    response: Option<Box<dyn Read + Send>>,
}

impl PendingRequest {
    fn send(&mut self) -> io::Result<Box<dyn Read + Send>> {
        let result = if self.advertises {
            let mut request = self.agent.get(&self.url).header("Cache-Control", "no-cache");
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            request.call()
        } else {
            let length = self.request.stream_position()?;
            self.request.rewind()?;
            let mut request = self
                .agent
                .post(&self.url)
                .header("Content-Type", format!("application/x-{}-request", self.service))
                .header("Accept", format!("application/x-{}-result", self.service))
                .header("Content-Length", length.to_string());
            if let Some(authorization) = &self.authorization {
                request = request.header("Authorization", authorization);
            }
            request.send(SendBody::from_reader(&mut CountingReader(&mut self.request)))
        };
        let response = result.map_err(|error| failure_of(&error, &self.url))?;
        let kind = if self.advertises { "advertisement" } else { "result" };
        let expected = format!("application/x-{}-{kind}", self.service);
        check(&self.url, response, &expected)
    }
}

/// Counts the bytes sent, so that a long upload reports progress.
struct CountingReader<'a>(&'a mut SpooledTempFile);

impl Read for CountingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        add_bytes(count);
        Ok(count)
    }
}

impl Read for PendingRequest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let response = match &mut self.response {
            Some(response) => response,
            None => {
                let response = self.send()?;
                self.response.insert(response)
            }
        };
        match response.read(buffer) {
            Ok(count) => {
                add_bytes(count);
                Ok(count)
            }
            Err(error) => {
                let host = host(&self.url);
                Err(record_failure(
                    Reason::NetworkUnavailable,
                    format!("connection to {host} failed: {error}"),
                ))
            }
        }
    }
}

impl Write for PendingRequest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.response.take().is_some() {
            self.request = SpooledTempFile::new(SPOOL_BYTES);
        }
        self.request.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn host(url: &str) -> String {
    http_url::parse(url).and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| redact_url(url))
}

fn failure_of(error: &ureq::Error, url: &str) -> io::Error {
    let text = error.to_string();
    // All other errors mean that there was no response.
    let reason = if matches!(error, ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl) {
        Reason::InvalidConfiguration
    } else {
        Reason::NetworkUnavailable
    };
    record_failure(reason, format!("cannot reach {}: {text}", host(url)))
}

/// Returns the body of a successful response; records any other as a failure.
fn check(url: &str, response: Response<Body>, expected: &str) -> io::Result<Box<dyn Read + Send>> {
    let status = response.status().as_u16();
    let (parts, body) = response.into_parts();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = body.into_with_config().limit(u64::MAX).reader();
    if status == 200 && header("content-type").split(';').next() == Some(expected) {
        return Ok(Box::new(body));
    }
    if status == 200 {
        let kind = header("content-type");
        let text = format!("{} is not a git repository: the server returned `{kind}`", redact_url(url));
        return Err(record_failure(Reason::RepositoryNotFound, text));
    }
    if (300..400).contains(&status) {
        let target = redact_url(header("location"));
        let text = format!("{} redirects to {target}, which is not followed: use that URL", redact_url(url));
        return Err(record_failure(Reason::RepositoryNotFound, text));
    }
    let mut message = Vec::new();
    drop(body.take(MAX_MESSAGE_BYTES).read_to_end(&mut message));
    let message = String::from_utf8_lossy(&message);
    let reason = reason_of_status(status, &parts.headers, &message);
    let message = message.trim();
    // An HTML page is not a message.
    let message =
        if message.is_empty() || message.starts_with('<') { String::new() } else { format!(": {message}") };
    Err(record_failure(reason, format!("{} returned status {status}{message}", host(url))))
}

fn reason_of_status(status: u16, headers: &HeaderMap, message: &str) -> Reason {
    let limited = headers.contains_key("retry-after")
        || headers.get("x-ratelimit-remaining").is_some_and(|left| left.as_bytes() == b"0")
        || message.to_ascii_lowercase().contains("rate limit");
    match status {
        429 => Reason::RemoteUnavailable,
        401 => Reason::AuthenticationFailed,
        403 if limited => Reason::RemoteUnavailable,
        403 => Reason::PermissionDenied,
        404 | 410 => Reason::RepositoryNotFound,
        407 => Reason::InvalidConfiguration,
        500.. => Reason::RemoteUnavailable,
        _ => Reason::RemoteUnavailable, // Not a valid status for these requests.
    }
}

/// Returns a URL without query, fragment and credentials.
fn redact_url(text: &str) -> String {
    let without_query = text.split(['?', '#']).next().unwrap_or_default();
    let without_query = without_query.strip_suffix("/info/refs").unwrap_or(without_query);
    let redacted = Url::parse(without_query).map(|mut url| {
        let is_redacted = url.set_username("").is_ok() && url.set_password(None).is_ok();
        is_redacted.then(|| url.to_string())
    });
    match redacted {
        Ok(Some(url)) => url,
        Err(ParseError::RelativeUrlWithoutBase) if !text.contains('@') => without_query.to_owned(),
        Ok(None) | Err(_) => "an invalid URL".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_compares_scheme_host_port() {
        let ours = origin("https://github.com/o/r");
        assert!(ours.is_some());
        assert_eq!(ours, origin("https://GitHub.com:443/o/r/info/refs?service=x"));
        for other in [
            "http://github.com/o/r",
            "https://github.com:8443/o/r",
            "https://github.com.evil.org/o/r",
            "https://github.com./o/r",
            "https://github.com@evil.org/o/r",
            "https://evil.org\\@github.com/o/r",
            "https://github.com\\@evil.org/o/r",
            "https:github.com/o/r",
            "https://git%68ub.com/o/r",
            "https://\u{ff47}ithub.com/o/r",
            "/o/r",
        ] {
            assert_ne!(ours, origin(other), "{other}");
        }
    }

    #[test]
    fn origin_without_encryption_gets_no_credential() {
        for (url, has_origin) in [
            ("https://git.example.com/o/r", true),
            ("http://127.0.0.1:8080/o/r", true),
            ("http://localhost/o/r", true),
            ("http://git.example.com/o/r", false),
            ("http://10.0.0.1/o/r", false),
            ("http://localhost.evil.com/o/r", false),
        ] {
            assert_eq!(origin(url).is_some(), has_origin, "{url}");
        }
    }

    #[test]
    fn no_proxy_matches_host_or_parent_domain() {
        for (rule, host, excluded) in [
            ("github.com", "github.com", true),
            (".corp", "git.corp", true),
            ("*.corp", "git.corp", true),
            ("corp", "notcorp", false),
            ("*", "anything", true),
            ("", "anything", false),
        ] {
            assert_eq!(no_proxy_matches(rule, host), excluded, "{rule} {host}");
        }
    }

    #[test]
    fn http_statuses_map_to_reasons() {
        let none = HeaderMap::new();
        for (status, message, reason) in [
            (401, "", Reason::AuthenticationFailed),
            (403, "", Reason::PermissionDenied),
            (403, "You have exceeded a secondary rate limit", Reason::RemoteUnavailable),
            (404, "Not Found", Reason::RepositoryNotFound),
            (429, "", Reason::RemoteUnavailable),
            (503, "", Reason::RemoteUnavailable),
        ] {
            assert_eq!(reason_of_status(status, &none, message), reason, "{status} {message}");
        }
    }

    #[test]
    fn redacted_url_has_no_credentials() {
        for (text, redacted) in [
            ("https://me:secret@host/x?y=z", "https://host/x"),
            ("https://me:sec@ret@host", "https://host/"),
            ("https://host:8443/o/r/info/refs?service=x#y", "https://host:8443/o/r"),
            ("/login?return=x", "/login"),
            ("//me:secret@host/x", "an invalid URL"),
            ("https://me:sec/ret@host/x", "an invalid URL"),
            ("me:secret@host", "an invalid URL"),
            ("", ""),
        ] {
            assert_eq!(redact_url(text), redacted, "{text}");
        }
    }
}
