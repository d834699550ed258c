//! Repository URLs. The text stays as given; names and paths derive from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{InvalidName, invalid};
use crate::http_url;

text_type!(
    /// Repository URL: `https://`, `ssh://`, `user@host:path`, or an absolute path; `http://` to this machine
    /// only.
    RepositoryUrl,
    "^\\S+$",
    validate_url
);

/// Transport of a repository URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// `https://`, or `http://` to this machine, authenticated with a token.
    Http,
    /// `ssh://` or `user@host:path`, authenticated with a key.
    Ssh,
    /// An absolute path on this machine.
    Local,
}

/// A repository address in the form of scp(1): `user@host:path`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ScpAddress<'a> {
    /// Login name; everything before the last `@` of the host part.
    pub user: Option<&'a str>,
    /// Host name, or an address in brackets.
    pub host: &'a str,
    /// Path on the host: absolute, or relative to the login's home directory.
    pub path: &'a str,
}

impl<'a> ScpAddress<'a> {
    /// Parses an address; `None` if git would read the text as something else.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (left, path) = text.split_once(':')?;
        let (user, host) = left.rsplit_once('@').map_or((None, left), |(user, host)| (Some(user), host));
        let valid = !host.is_empty()
            && !host.starts_with('-')
            && !left.contains('/')
            && !path.is_empty()
            && !path.starts_with(':')
            && !path.starts_with("//");
        valid.then_some(Self { user, host, path })
    }
}

/// Hosts where all transports lead to the same repositories, and paths ignore case.
const FORGES: [&str; 3] = ["github.com", "gitlab.com", "bitbucket.org"];

/// The default port of ssh (RFC 4251, section 4).
const SSH_PORT: u16 = 22;

/// What distinguishes a repository from all others.
#[derive(Debug, Eq, PartialEq)]
struct Place {
    /// The server; `None` on this machine.
    service: Option<Endpoint>,
    path: String,
}

/// A server that holds repositories.
#[derive(Debug, Eq, PartialEq)]
struct Endpoint {
    host: String,
    /// Scheme, login and port; `None` for one of [`FORGES`].
    other: Option<(String, Option<String>, Option<u16>)>,
}

fn validate_url(value: &str) -> Result<(), InvalidName> {
    let problem = if value.is_empty() {
        Some("must not be empty".to_owned())
    } else if value.len() > 2000 || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Some("must not contain whitespace or control characters, or exceed 2000 characters".to_owned())
    } else if value.starts_with('-') {
        Some("must not start with a hyphen".to_owned())
    } else {
        match value.split_once("://") {
            Some(("https" | "http", _)) => http_problem(value),
            Some(("ssh", _)) => ssh_problem(value),
            Some(_) => Some("unsupported scheme; expected https, http, ssh or an absolute path".to_owned()),
            None if value.starts_with('/') || ScpAddress::parse(value).is_some() => None,
            None => {
                Some("expected an https, http or ssh URL, `user@host:path` or an absolute path".to_owned())
            }
        }
    };
    problem.map_or(Ok(()), |problem| Err(invalid("repository URL", &without_credentials(value), problem)))
}

fn http_problem(value: &str) -> Option<String> {
    if http_url::split_user_info(value).is_some() {
        return Some("contains credentials; remove them and provide the token as a secret".to_owned());
    }
    let authority = http_url::authority(value).filter(|authority| !authority.is_empty());
    let (Some(authority), Ok(url)) = (authority, Url::parse(value)) else {
        return Some(parse_problem(value));
    };
    let is_spelled = http_url::is_spelled(authority, &url);
    if !http_url::is_secure(&url) || (url.scheme() == "http" && !is_spelled) {
        return Some("http is not encrypted: use https or ssh".to_owned());
    }
    // Numeric IPv4 addresses such as `127.1` work, but get no credential: see `host`.
    let accepted = is_spelled || matches!(url.host(), Some(Host::Ipv4(_)));
    (!accepted).then(|| format!("ambiguous host; write `{}`", url.host_str().unwrap_or_default()))
}

fn ssh_problem(value: &str) -> Option<String> {
    let Ok(url) = Url::parse(value) else { return Some(parse_problem(value)) };
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Some("missing host".to_owned());
    };
    // ssh(1) would read either as an option.
    let is_option = host.starts_with('-') || url.username().starts_with('-');
    is_option.then(|| "host and user must not start with a hyphen".to_owned())
}

/// Returns why a URL with a supported scheme cannot be parsed.
fn parse_problem(value: &str) -> String {
    let has_host = http_url::authority(value).is_some_and(|host| !host.is_empty() && !host.starts_with(':'));
    match Url::parse(value) {
        Err(error) if has_host && error != url::ParseError::EmptyHost => error.to_string(),
        Ok(_) | Err(_) => "missing host".to_owned(),
    }
}

/// Returns the text of an HTTP URL with everything before the last `@` masked: a malformed URL may
/// have its password anywhere.
fn without_credentials(value: &str) -> String {
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme @ ("https" | "http"), _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        (Some(_) | None, Some(_) | None) => value.to_owned(),
    }
}

impl RepositoryUrl {
    /// Returns how the repository is reached.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.0.split_once("://") {
            Some(("http" | "https", _)) => Transport::Http,
            Some(_) => Transport::Ssh,
            None if self.0.starts_with('/') => Transport::Local,
            None => Transport::Ssh,
        }
    }

    /// Returns the host without user and port.
    ///
    /// Returns `None` for a local path, and for an HTTP URL with a host that programs may read
    /// differently: such a host must not receive a credential.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        match self.transport() {
            Transport::Local => None,
            Transport::Http => http_url::parse(&self.0)?.host_str().map(str::to_owned),
            Transport::Ssh => match ScpAddress::parse(&self.0) {
                Some(address) => Some(address.host.to_owned()),
                None => Url::parse(&self.0).ok()?.host_str().map(str::to_owned),
            },
        }
    }

    /// Returns the path on the host, without leading slash and `.git`: `owner/name` on GitHub.
    #[must_use]
    pub fn path(&self) -> &str {
        let path = match self.0.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => ScpAddress::parse(&self.0).map_or(self.0.as_str(), |address| address.path),
        };
        let path = path.trim_matches('/');
        path.strip_suffix(".git").unwrap_or(path)
    }

    /// Returns whether both URLs name one repository, whatever their spelling.
    ///
    /// Neither `.git`, a final slash, upper case in the host, the default port, nor `ssh://host/path` for
    /// `host:path` makes a difference. On the hosts in [`FORGES`] neither does the transport, the login or upper
    /// case in the path. A local path has one spelling, except for a final slash. In doubt it is another
    /// repository: nothing is decoded, resolved or looked up.
    #[must_use]
    pub fn is_same_repository(&self, other: &Self) -> bool {
        self == other || self.place().is_some_and(|place| other.place() == Some(place))
    }

    /// Returns the parts that distinguish repositories; `None` if the host is ambiguous.
    fn place(&self) -> Option<Place> {
        let (scheme, user, host, port) = match self.transport() {
            Transport::Local => {
                let path = self.0.trim_end_matches('/').to_owned();
                return Some(Place { service: None, path });
            }
            Transport::Http => {
                let url = http_url::parse(&self.0)?;
                (url.scheme().to_owned(), None, url.host_str()?.to_owned(), url.port_or_known_default())
            }
            Transport::Ssh => {
                let (user, host, port) = match ScpAddress::parse(&self.0) {
                    Some(address) => (address.user.map(str::to_owned), address.host.to_owned(), None),
                    None => {
                        let url = Url::parse(&self.0).ok()?;
                        let user = Some(url.username().to_owned()).filter(|user| !user.is_empty());
                        (user, url.host_str()?.to_owned(), url.port())
                    }
                };
                ("ssh".to_owned(), user, host.to_ascii_lowercase(), port.or(Some(SSH_PORT)))
            }
        };
        let path = self.path().to_owned();
        let is_default_port =
            matches!((scheme.as_str(), port), ("https", Some(443)) | ("ssh", Some(SSH_PORT)));
        Some(if is_default_port && FORGES.contains(&host.as_str()) {
            Place { service: Some(Endpoint { host, other: None }), path: path.to_ascii_lowercase() }
        } else {
            Place { service: Some(Endpoint { host, other: Some((scheme, user, port)) }), path }
        })
    }

    /// Returns the last part of the path: the name of the repository.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    /// Returns owner and name if the path has the form that GitHub uses.
    #[must_use]
    pub fn owner_and_name(&self) -> Option<(&str, &str)> {
        if self.transport() == Transport::Local {
            return None;
        }
        let (owner, name) = self.path().split_once('/')?;
        (!owner.is_empty() && !name.is_empty() && !name.contains('/')).then_some((owner, name))
    }
}

#[cfg(test)]
mod tests;
