//! One MCP call over HTTP: who, the whole request, then the answer.

use std::error::Error as _;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tracing::error;

use super::audit::AuditEntry;
use super::auth::AuthError;
use super::connections::Client;
use super::{Server, guard};

/// Answers a call, and tells the audit log about it.
pub(super) async fn answer(
    State(server): State<Server>,
    Extension(Client(client)): Extension<Client>,
    request: Request,
) -> Response {
    let mut call = AuditEntry::begin(client);
    match authorize(&server, &mut call, request).await {
        Ok(request) => handle(&server, call, request).await,
        Err(refusal) => {
            call.answered(refusal.status());
            refusal
        }
    }
}

/// The complete request of a caller that may call.
async fn authorize(server: &Server, call: &mut AuditEntry, request: Request) -> Result<Request, Response> {
    if !guard::has_single_headers(request.headers()) {
        return Err(error_response(StatusCode::BAD_REQUEST, "Host and Origin may come once only"));
    }
    let identity = server.tokens.identify(request.headers()).map_err(|denial| match denial {
        AuthError::Unknown => {
            let mut refusal = error_response(
                StatusCode::UNAUTHORIZED,
                "a token is needed: send it as `Authorization: Bearer TOKEN`",
            );
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refusal
        }
        AuthError::Unreadable(problem) => {
            error!(error = %problem, "nobody can call: there is no usable token");
            error_response(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server has no usable token: its log says why",
            )
        }
    })?;
    call.identified(identity);
    if server.calls.len() >= server.limits.calls {
        return Err(error_response(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many calls at the same time: try again",
        ));
    }
    if request.method() != Method::POST {
        let mut refusal = error_response(StatusCode::METHOD_NOT_ALLOWED, "MCP is spoken by POST here");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Err(refusal);
    }
    let (head, body) = request.into_parts();
    let body = receive(server, body).await?;
    call.on_request(&body);
    Ok(Request::from_parts(head, Body::from(body)))
}

async fn receive(server: &Server, body: Body) -> Result<Bytes, Response> {
    let limits = server.limits;
    match tokio::time::timeout(limits.body_time, to_bytes(body, limits.body)).await {
        Ok(Ok(body)) => Ok(body),
        // axum names this error, but only as a source of its own.
        Ok(Err(error))
            if error.source().is_some_and(|source| source.to_string().contains("length limit")) =>
        {
            let text = format!("a request may have {} bytes at most", limits.body);
            Err(error_response(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
        Ok(Err(_)) => Err(error_response(StatusCode::BAD_REQUEST, "the request cannot be read to its end")),
        Err(_) => {
            let text = format!("a request has to be complete within {} s", limits.body_time.as_secs_f32());
            Err(error_response(StatusCode::REQUEST_TIMEOUT, &text))
        }
    }
}

/// Carries out a complete call, to its answer, whether or not anybody still waits for that.
async fn handle(server: &Server, mut call: AuditEntry, request: Request) -> Response {
    let answer = (server.mcp)(request);
    // A task of its own: what drops this function when the connection is gone must not drop the call.
    let answered = server.calls.spawn(async move {
        let response = answer.await;
        call.answered(response.status());
        call.follow(response).await
    });
    answered.await.unwrap_or_else(|error| {
        error!(%error, "a call failed inside the server");
        error_response(StatusCode::INTERNAL_SERVER_ERROR, "an error in the server: its log says more")
    })
}

fn error_response(status: StatusCode, text: &str) -> Response {
    let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, format!("{text}\n")).into_response()
}
