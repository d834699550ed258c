//! Who calls: told by a bearer token, compared in constant time.

use std::path::PathBuf;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::{Choice, ConstantTimeEq as _};

use crate::files;
use crate::problem::Problem;

/// The shortest token that is taken: 16 characters of a random token cannot be guessed.
const SHORTEST: usize = 16;

/// Who called, as far as it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity {
    /// No token is asked for.
    Anyone,
    /// The caller had a token.
    Bearer,
}

impl Identity {
    /// The word for it in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Anyone => "none",
            Self::Bearer => "bearer",
        }
    }
}

/// Where the tokens are that callers must show.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// Callers need none.
    NotNeeded,
    /// One on each line of a file, read at every call: so they can be exchanged while it runs.
    File(PathBuf),
    /// This one.
    Given(SecretString),
}

/// Why a call goes no further.
#[derive(Debug)]
pub enum Denial {
    /// There is no token, or none that is known.
    Unknown,
    /// What callers must show cannot be read.
    Unreadable(Problem),
}

impl Tokens {
    /// Whether callers must show a token.
    #[must_use]
    pub fn are_needed(&self) -> bool {
        match self {
            Self::NotNeeded => false,
            Self::File(_) | Self::Given(_) => true,
        }
    }

    /// Looks for a usable token, before anybody calls.
    ///
    /// # Errors
    /// The file cannot be read, holds no token, or one that is too short.
    pub fn check(&self) -> Result<(), Problem> {
        self.read().map(drop)
    }

    /// Tells who calls.
    ///
    /// # Errors
    /// The caller is not let in.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Identity, Denial> {
        if !self.are_needed() {
            return Ok(Identity::Anyone);
        }
        let shown = shown(headers).ok_or(Denial::Unknown)?;
        let known = self.read().map_err(Denial::Unreadable)?;
        // Every one is compared, so that the time does not tell which one was close.
        let found = known.iter().fold(Choice::from(0), |found, token| {
            found | token.expose_secret().as_bytes().ct_eq(shown.as_bytes())
        });
        if bool::from(found) { Ok(Identity::Bearer) } else { Err(Denial::Unknown) }
    }

    fn read(&self) -> Result<Vec<SecretString>, Problem> {
        let (tokens, place) = match self {
            Self::NotNeeded => return Ok(Vec::new()),
            Self::Given(token) => (vec![token.clone()], "ORCHESTRATOR_SERVE_TOKEN".to_owned()),
            Self::File(path) => {
                let text = files::read(path)?.ok_or_else(|| {
                    Problem::configuration(format!("there is no token file {}", path.display()))
                        .next("Make it, for example with: openssl rand -hex 32.")
                })?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                (lines.map(SecretString::from).collect(), path.display().to_string())
            }
        };
        if tokens.is_empty() || tokens.iter().any(|token| token.expose_secret().len() < SHORTEST) {
            let problem = format!("{place} holds no token, or one of less than {SHORTEST} characters");
            return Err(
                Problem::configuration(problem).next("Make one, for example with: openssl rand -hex 32.")
            );
        }
        Ok(tokens)
    }
}

/// The token of a call that shows exactly one (RFC 6750, section 2.1).
fn shown(headers: &HeaderMap) -> Option<&str> {
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
    fn only_the_very_token_lets_in() {
        let tokens = Tokens::Given(TOKEN.into());
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
            assert_eq!(identity, expected.then_some(Identity::Bearer), "{values:?}");
        }
    }

    #[test]
    fn tokens_of_a_file_can_be_exchanged_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let tokens = Tokens::File(path.clone());
        let lets_in = |token: &str| tokens.identify(&headers(&[&format!("Bearer {token}")])).is_ok();
        assert!(tokens.check().is_err() && !lets_in(TOKEN));
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        assert!(tokens.check().is_ok() && lets_in(TOKEN));
        std::fs::write(&path, format!("{TOKEN}\n\nanother-token-of-good-length\n")).unwrap();
        assert!(lets_in(TOKEN) && lets_in("another-token-of-good-length"));
        std::fs::write(&path, "another-token-of-good-length").unwrap();
        assert!(!lets_in(TOKEN));
        for useless in ["", "\n \n", "short"] {
            std::fs::write(&path, useless).unwrap();
            assert!(tokens.check().is_err() && !lets_in(useless.trim()), "{useless:?}");
        }
    }

    #[test]
    fn a_token_does_not_reach_debug_output() {
        assert!(!format!("{:?}", Tokens::Given(TOKEN.into())).contains(TOKEN));
    }
}
