//! Refused requests, as errors in the format of the model API.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

/// Why the gateway answers a request itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

/// Kind of a refusal; decides the status, and with it whether the CLI retries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalKind {
    /// The request is not HTTP or JSON as it should be.
    Malformed,
    /// The token is missing or wrong, or the model credential cannot be read.
    Unauthorized,
    /// The gateway does not admit this.
    Forbidden,
    /// The body is too large.
    TooLarge,
    /// The request could exceed the run's cost limit. The CLI ends at the first one.
    CostLimit,
    /// Too much is reserved for other requests at the moment; the CLI retries.
    Busy,
    /// The model API cannot be reached; the CLI retries.
    Unreachable,
}

impl RefusalKind {
    fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::CostLimit => StatusCode::PAYMENT_REQUIRED,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "invalid_request_error",
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::TooLarge => "request_too_large",
            Self::CostLimit => "billing_error",
            Self::Busy => "rate_limit_error",
            Self::Unreachable => "api_error",
        }
    }
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Refuses what the gateway does not admit.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Forbidden, message)
    }

    /// Returns the error as the API would send it.
    #[must_use]
    pub fn response(&self) -> Response {
        let error = json!({"type": self.kind.name(), "message": self.message});
        let body = json!({"type": "error", "error": error}).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.kind {
            RefusalKind::Busy => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            }
            RefusalKind::Malformed
            | RefusalKind::Unauthorized
            | RefusalKind::Forbidden
            | RefusalKind::TooLarge
            | RefusalKind::CostLimit
            | RefusalKind::Unreachable => {}
        }
        response
    }
}
