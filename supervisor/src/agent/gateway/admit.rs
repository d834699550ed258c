//! Which requests the gateway admits, by method, target and headers. Pure.

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method};

use super::body::Purpose;
use super::json::short;
use super::refusal::{Refusal, RefusalKind};

/// The header that carries an API key (<https://docs.anthropic.com/en/api/overview#authentication>).
pub const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Returns what an admitted request is for.
///
/// The target is compared as it was sent: no path is normalized, so that none has two readings.
///
/// # Errors
/// Refuses all requests but `POST /v1/messages` and `POST /v1/messages/count_tokens` with `token`.
pub fn admit(parts: &Parts, token: &str) -> Result<Purpose, Refusal> {
    let key = parts.headers.get(&API_KEY).map(HeaderValue::as_bytes);
    let bearer = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| value.strip_prefix(b"Bearer "));
    if key.or(bearer) != Some(token.as_bytes()) {
        return Err(Refusal::new(RefusalKind::Unauthorized, "invalid gateway token"));
    }
    if parts.uri.scheme().is_some() || parts.uri.authority().is_some() {
        return Err(Refusal::forbidden("the gateway is not a proxy: it admits no address of another server"));
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let purpose = match target {
        "/v1/messages" | "/v1/messages?beta=true" => Purpose::Message,
        "/v1/messages/count_tokens" | "/v1/messages/count_tokens?beta=true" => Purpose::CountTokens,
        _ => {
            return Err(Refusal::forbidden(format!(
                "the gateway does not admit `{} {}`",
                short(parts.method.as_str()),
                short(target)
            )));
        }
    };
    if parts.method != Method::POST {
        let message = format!("the gateway does not admit `{} {target}`", short(parts.method.as_str()));
        return Err(Refusal::forbidden(message));
    }
    if parts.headers.contains_key(UPGRADE) {
        return Err(Refusal::forbidden("the gateway does not admit another protocol"));
    }
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = content_type.is_some_and(|text| {
        text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    });
    if !is_json || parts.headers.contains_key(CONTENT_ENCODING) {
        return Err(Refusal::new(RefusalKind::Malformed, "the body must be plain JSON"));
    }
    Ok(purpose)
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;

    use super::*;

    fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const OWN: &[(&str, &str)] = &[("x-api-key", "t"), ("content-type", "application/json")];

    #[test]
    fn messages_are_admitted_and_all_else_is_refused() {
        for target in ["/v1/messages", "/v1/messages?beta=true"] {
            assert_eq!(admit(&parts("POST", target, OWN), "t"), Ok(Purpose::Message));
        }
        assert_eq!(
            admit(&parts("POST", "/v1/messages/count_tokens?beta=true", OWN), "t"),
            Ok(Purpose::CountTokens)
        );
        for (method, target) in [
            ("GET", "/v1/messages"),
            ("HEAD", "/v1/messages"),
            ("PUT", "/v1/messages"),
            ("OPTIONS", "*"),
            ("GET", "/v1/files"),
            ("DELETE", "/v1/files/file_1"),
            ("POST", "/v1/files"),
            ("POST", "/v1/messages/batches"),
            ("GET", "/v1/models"),
            ("POST", "/v1/complete"),
            ("GET", "/v1/organizations/me"),
            ("POST", "/v1/messages/"),
            ("POST", "//v1/messages"),
            ("POST", "/v1//messages"),
            ("POST", "/v1/messages?beta=true&x=1"),
            ("POST", "/v1/messages?beta=false"),
            ("POST", "/v1/messages?"),
            ("POST", "/v1/x/../messages"),
            ("POST", "/v1/messages/../files"),
            ("POST", "/v1/messages%2f..%2ffiles"),
            ("POST", "/v1/%6dessages"),
            ("POST", "/V1/messages"),
            ("POST", "/v1/messages;x"),
            ("POST", "http://evil.example/v1/messages"),
            ("CONNECT", "evil.example:443"),
        ] {
            let refusal = admit(&parts(method, target, OWN), "t").expect_err(target);
            assert_eq!(refusal.kind, RefusalKind::Forbidden, "{method} {target}");
        }
    }

    #[test]
    fn wrong_token_is_refused_first() {
        for headers in
            [&[("x-api-key", "u")][..], &[("authorization", "Bearer u")], &[("authorization", "t")], &[]]
        {
            let refusal = admit(&parts("GET", "/v1/files", headers), "t").unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::Unauthorized);
        }
        let bearer = [("authorization", "Bearer t"), ("content-type", "application/json; charset=utf-8")];
        assert_eq!(admit(&parts("POST", "/v1/messages", &bearer), "t"), Ok(Purpose::Message));
    }

    #[test]
    fn other_protocols_and_encodings_are_refused() {
        for header in [("upgrade", "h2c"), ("content-encoding", "gzip"), ("content-type", "text/plain")] {
            let mut headers = OWN.to_vec();
            headers.retain(|(name, _)| *name != header.0);
            headers.push(header);
            assert!(admit(&parts("POST", "/v1/messages", &headers), "t").is_err(), "{header:?}");
        }
    }
}
