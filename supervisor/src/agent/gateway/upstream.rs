//! The connection to the model API: its address, proxy, certificates and credential.

use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use url::{Host, Url};

use super::admit::API_KEY;
use super::body::Purpose;
use super::refusal::{Refusal, RefusalKind};
use crate::config::{ModelAuth, ProcessEnv, SecretSource};
use crate::failure::error_chain;
use crate::tls::{CertificatePaths, RootCertificatesError};

/// Default of `ANTHROPIC_BASE_URL`.
const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// Connection timeout; not longer than the CLI's own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest silence of the API; the CLI gives up earlier.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

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
    /// The credential would be sent in the clear.
    #[error("ANTHROPIC_BASE_URL `{0}` must use https: the model credential is not sent in the clear")]
    Insecure(String),
    /// The trusted certificate authorities cannot be read.
    #[error(transparent)]
    RootCertificates(RootCertificatesError),
    /// No loopback port is available, or the socket cannot be created.
    #[error("cannot listen for the agent's requests to the model API")]
    Listen(#[source] std::io::Error),
    /// The HTTP client cannot be built: an invalid proxy address or certificate.
    #[error("cannot build the client for the model API")]
    Client(#[source] reqwest::Error),
    /// The file of `NODE_EXTRA_CA_CERTS` cannot be read or parsed.
    #[error("cannot load the certificates in `{0}`")]
    Certificates(String),
}

/// The model API, with the credential that is read for each request.
#[derive(Debug)]
pub struct Upstream {
    messages: Url,
    count_tokens: Url,
    extra_headers: HeaderMap,
    secrets: SecretSource,
    client: reqwest::Client,
}

impl Upstream {
    /// Reads address, proxy and certificates from the environment of `secrets`.
    ///
    /// # Errors
    /// Returns an error if one of them is invalid, or if the address is neither https nor loopback.
    pub fn new(secrets: &SecretSource) -> Result<Self, GatewayError> {
        let process_env = secrets.process_env();
        let base = process_env.text("ANTHROPIC_BASE_URL").unwrap_or(DEFAULT_BASE_URL).trim_end_matches('/');
        let parse = |path: &str| {
            Url::parse(&format!("{base}{path}"))
                .map_err(|source| GatewayError::BaseUrl { url: base.to_owned(), source })
        };
        let messages = parse("/v1/messages?beta=true")?;
        let is_loopback = is_loopback(&messages);
        if messages.scheme() != "https" && !(messages.scheme() == "http" && is_loopback) {
            let mut shown = messages.clone();
            // Fails for addresses without a host, which have no user either.
            let _ = (shown.set_password(None), shown.set_username(""));
            shown.set_path("");
            shown.set_query(None);
            return Err(GatewayError::Insecure(shown.to_string()));
        }
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // A redirect would send the credential to another host.
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_only(trusted_certificates(process_env, messages.scheme() == "https")?)
            // Variables that are files are not in the environment of this process.
            .no_proxy();
        if let Some(proxy) = proxy(process_env).filter(|_| !is_loopback) {
            client = client.proxy(proxy.map_err(GatewayError::Client)?);
        }
        Ok(Self {
            count_tokens: parse("/v1/messages/count_tokens?beta=true")?,
            messages,
            extra_headers: parse_headers(process_env.text("ANTHROPIC_CUSTOM_HEADERS").unwrap_or_default()),
            secrets: secrets.clone(),
            client: client.build().map_err(GatewayError::Client)?,
        })
    }

    /// Sends a request with the credential.
    ///
    /// # Errors
    /// Refuses if the credential cannot be read or the API not be reached. The flag tells whether
    /// the API may have received the request.
    pub async fn send(
        &self,
        purpose: Purpose,
        mut headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, (Refusal, bool)> {
        let Some((name, value)) = self.credential() else {
            let refusal = Refusal::new(RefusalKind::Unauthorized, "cannot read the model credential");
            return Err((refusal, false));
        };
        headers.extend(self.extra_headers.clone());
        headers.insert(name, value);
        let url = match purpose {
            Purpose::Message => &self.messages,
            Purpose::CountTokens => &self.count_tokens,
        };
        let sent = self.client.post(url.clone()).headers(headers).body(body).send().await;
        sent.map_err(|error| {
            let is_unsent = error.is_connect() || error.is_builder();
            let text = error_chain(&error.without_url());
            (
                Refusal::new(RefusalKind::Unreachable, format!("cannot reach the model API: {text}")),
                !is_unsent,
            )
        })
    }

    fn credential(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, text) = match self.secrets.model().ok()??.auth {
            ModelAuth::ApiKey(key) => (API_KEY, key.expose_secret().to_owned()),
            ModelAuth::Bearer(token) | ModelAuth::OAuth(token) => {
                (AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
            }
            ModelAuth::CloudSigned => return None,
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }
}

/// Returns whether a URL names this machine by address or as `localhost`.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Returns the proxy of the environment for https.
fn proxy(process_env: &ProcessEnv) -> Option<reqwest::Result<reqwest::Proxy>> {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let url = names.iter().find_map(|name| process_env.text(name))?;
    let excluded = ["NO_PROXY", "no_proxy"].iter().find_map(|name| process_env.text(name));
    let excluded = excluded.and_then(reqwest::NoProxy::from_string);
    Some(reqwest::Proxy::all(url).map(|proxy| proxy.no_proxy(excluded)))
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
    let mut certificates = match process_env.text("NODE_EXTRA_CA_CERTS") {
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

/// Parses `Name: value` lines, as the CLI does; ignores invalid ones.
fn parse_headers(text: &str) -> HeaderMap {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    };
    text.lines().filter_map(header).collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretFiles;

    fn open(variables: &[(&str, &str)]) -> Result<Upstream, GatewayError> {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut all = vec![("ANTHROPIC_API_KEY", "sk-the-key")];
        all.extend_from_slice(variables);
        Upstream::new(&SecretSource::new(SecretFiles::default(), ProcessEnv::from_pairs(&all)))
    }

    #[test]
    fn plain_http_is_refused_except_on_loopback() {
        for url in ["https://llm.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost/prefix/"]
        {
            assert!(open(&[("ANTHROPIC_BASE_URL", url)]).is_ok(), "{url}");
        }
        for url in [
            "http://llm.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "http://localhost.example",
            "file:///x",
        ] {
            let error = open(&[("ANTHROPIC_BASE_URL", url)]).unwrap_err();
            assert!(matches!(error, GatewayError::Insecure(_)), "{url}: {error}");
        }
        assert!(matches!(open(&[("ANTHROPIC_BASE_URL", "not a url")]), Err(GatewayError::BaseUrl { .. })));
        let error = open(&[("ANTHROPIC_BASE_URL", "http://user:secret@llm.example/x")]).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn prefix_of_address_is_kept() {
        let upstream = open(&[("ANTHROPIC_BASE_URL", "https://llm.example/prefix/")]).unwrap();
        assert_eq!(upstream.messages.as_str(), "https://llm.example/prefix/v1/messages?beta=true");
    }

    /// Returns the first line that a server on the loopback interface receives.
    async fn first_line(listener: tokio::net::TcpListener) -> String {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let (stream, _) = listener.accept().await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        line
    }

    #[tokio::test]
    async fn proxy_given_as_file_is_used_for_https() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("environment")).unwrap();
        let proxy = format!("http://{}\n", listener.local_addr().unwrap());
        std::fs::write(folder.path().join("environment/HTTPS_PROXY"), proxy).unwrap();
        let base = ProcessEnv::from_pairs(&[
            ("ANTHROPIC_API_KEY", "k"),
            ("ANTHROPIC_BASE_URL", "https://llm.example"),
        ]);
        let secrets = SecretSource::new(SecretFiles::default(), base.with_files(Some(folder.path())));
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let upstream = Upstream::new(&secrets).unwrap();
        let line = tokio::spawn(first_line(listener));
        let sent = upstream.send(Purpose::Message, HeaderMap::new(), b"{}".to_vec()).await;
        assert!(sent.is_err());
        assert_eq!(line.await.unwrap(), "CONNECT llm.example:443 HTTP/1.1\r\n");
    }

    #[tokio::test]
    async fn loopback_api_is_reached_without_proxy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        proxy.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
        let names = ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"];
        let mut variables = vec![("ANTHROPIC_BASE_URL", url.as_str())];
        variables.extend(names.map(|name| (name, proxy_url.as_str())));
        let upstream = open(&variables).unwrap();
        let line = tokio::spawn(first_line(listener));
        drop(upstream.send(Purpose::Message, HeaderMap::new(), b"{}".to_vec()).await);
        assert_eq!(line.await.unwrap(), "POST /v1/messages?beta=true HTTP/1.1\r\n");
        assert_eq!(proxy.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
