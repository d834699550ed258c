//! Bearer token authentication, with constant-time comparison.

use std::path::PathBuf;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::{Choice, ConstantTimeEq as _};

use super::own_token;
use crate::error::Error;
use crate::files;

/// Minimum token length: 16 random characters cannot be guessed.
const MIN_TOKEN_CHARS: usize = 16;

/// An authenticated caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Caller {
    /// The caller sent a valid token.
    Bearer,
}

impl Caller {
    /// Returns the name used in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
        }
    }
}

/// Where the accepted tokens come from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// The file that the server created for itself, see [`own_token`].
    Own(PathBuf),
    /// A file with one token per line, read on every request, so that tokens can be rotated.
    File(PathBuf),
    /// A single token.
    Inline(SecretString),
}

/// Why a caller is rejected.
#[derive(Debug)]
pub enum AuthError {
    /// The token is missing or unknown.
    Unknown,
    /// The accepted tokens cannot be read.
    Unreadable(Error),
}

impl TokenSource {
    /// Checks that there is a valid token, before the first call.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or holds no token or one that is too short.
    pub fn check(&self) -> Result<(), Error> {
        self.read().map(drop)
    }

    /// Identifies the caller.
    ///
    /// # Errors
    /// Returns an error if the caller is rejected.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let presented = bearer_token(headers).ok_or(AuthError::Unknown)?;
        let known = self.read().map_err(AuthError::Unreadable)?;
        // Compare all tokens, so that timing does not reveal which one was close.
        let found = known.iter().fold(Choice::from(0), |found, token| {
            found | token.expose_secret().as_bytes().ct_eq(presented.as_bytes())
        });
        if bool::from(found) { Ok(Caller::Bearer) } else { Err(AuthError::Unknown) }
    }

    fn read(&self) -> Result<Vec<SecretString>, Error> {
        let (tokens, source) = match self {
            Self::Inline(token) => (vec![token.clone()], "ORCHESTRATOR_SERVE_TOKEN".to_owned()),
            Self::File(path) => {
                let text = files::read(path)?.ok_or_else(|| {
                    Error::configuration(format!("no token file {}", path.display()))
                        .with_hint("Create one, for example with: openssl rand -hex 32.")
                })?;
                (lines(&text), path.display().to_string())
            }
            Self::Own(path) => (lines(&own_token::read(path)?), path.display().to_string()),
        };
        if tokens.is_empty() || tokens.iter().any(|token| token.expose_secret().len() < MIN_TOKEN_CHARS) {
            let problem =
                format!("{source} holds no token, or a token of less than {MIN_TOKEN_CHARS} characters");
            return Err(Error::configuration(problem)
                .with_hint("Create one, for example with: openssl rand -hex 32."));
        }
        Ok(tokens)
    }
}

/// Returns the tokens of a file, one per line.
fn lines(text: &str) -> Vec<SecretString> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(SecretString::from).collect()
}

/// Returns the token of a request with exactly one (RFC 6750, section 2.1).
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn only_exact_token_is_authorized() {
        let tokens = TokenSource::Inline(TOKEN.into());
        let good = format!("Bearer {TOKEN}");
        let cases: &[(&[&str], bool)] = &[
            (&[&good], true),
            (&["bearer 0123456789abcdef0123"], true),
            (&[], false),
            (&["Bearer"], false),
            (&["Bearer "], false),
            (&["Bearer 0123456789abcdef012"], false),
            (&["Bearer 0123456789abcdef01234"], false),
            (&["Bearer 0123456789ABCDEF0123"], false),
            (&["Basic 0123456789abcdef0123"], false),
            (&["0123456789abcdef0123"], false),
            (&[&good, &good], false),
            (&[&good, "Bearer x"], false),
        ];
        for (values, expected) in cases {
            let identity = tokens.identify(&headers(values)).ok();
            assert_eq!(identity, expected.then_some(Caller::Bearer), "{values:?}");
        }
    }

    #[test]
    fn token_file_rotation_applies_while_running() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let tokens = TokenSource::File(path.clone());
        let authorizes = |token: &str| tokens.identify(&headers(&[&format!("Bearer {token}")])).is_ok();
        assert!(tokens.check().is_err() && !authorizes(TOKEN));
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        assert!(tokens.check().is_ok() && authorizes(TOKEN));
        std::fs::write(&path, format!("{TOKEN}\n\nanother-token-of-good-length\n")).unwrap();
        assert!(authorizes(TOKEN) && authorizes("another-token-of-good-length"));
        std::fs::write(&path, "another-token-of-good-length").unwrap();
        assert!(!authorizes(TOKEN));
        for useless in ["", "\n \n", "short"] {
            std::fs::write(&path, useless).unwrap();
            assert!(tokens.check().is_err() && !authorizes(useless.trim()), "{useless:?}");
        }
    }

    #[test]
    fn own_token_is_read_at_every_call() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve-token");
        let tokens = TokenSource::Own(path.clone());
        assert!(tokens.check().is_err());
        own_token::create_if_missing(&path).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        let authorizes =
            |token: &str| tokens.identify(&headers(&[&format!("Bearer {}", token.trim())])).is_ok();
        assert!(authorizes(&first) && !authorizes("") && !authorizes(TOKEN));
        std::fs::remove_file(&path).unwrap();
        assert!(!authorizes(&first));
        own_token::create_if_missing(&path).unwrap();
        assert!(!authorizes(&first) && authorizes(&std::fs::read_to_string(&path).unwrap()));
        std::fs::write(&path, "\n").unwrap();
        assert!(tokens.check().is_err() && !authorizes(""));
    }

    #[test]
    fn token_is_hidden_in_debug_output() {
        assert!(!format!("{:?}", TokenSource::Inline(TOKEN.into())).contains(TOKEN));
    }
}
