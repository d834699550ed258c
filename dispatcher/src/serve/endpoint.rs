//! The MCP endpoint: authorize, read the whole request, respond.

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
use super::guard;
use super::state::Server;
use crate::task::advice::render_for_cli;

/// The answer to callers without a token.
const UNAUTHORIZED: &str = "missing or invalid token: send `Authorization: Bearer TOKEN`
hint: the server's log names the file with the token; `dispatcher setup CLIENT --url URL` configures a client";

/// Handles a call and writes its audit entry.
pub(super) async fn answer(
    State(server): State<Server>,
    Extension(Client(client)): Extension<Client>,
    request: Request,
) -> Response {
    let mut call = AuditEntry::start(client);
    match authorize(&server, &mut call, request).await {
        Ok(request) => handle(&server, call, request).await,
        Err(refusal) => {
            call.record_status(refusal.status());
            refusal
        }
    }
}

/// Returns the complete request of an authorized caller.
async fn authorize(server: &Server, call: &mut AuditEntry, request: Request) -> Result<Request, Response> {
    if !guard::has_single_headers(request.headers()) {
        return Err(error_response(StatusCode::BAD_REQUEST, "duplicate Host or Origin header"));
    }
    let identity = server.tokens.identify(request.headers()).map_err(|denial| match denial {
        AuthError::Unknown => {
            let mut refusal = error_response(StatusCode::UNAUTHORIZED, UNAUTHORIZED);
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refusal
        }
        AuthError::Unreadable(problem) => {
            error!(error = %problem, hint = render_for_cli(problem.hint()), "no usable token, rejecting all calls");
            error_response(StatusCode::SERVICE_UNAVAILABLE, "the server has no usable token, see its log")
        }
    })?;
    call.record_caller(identity);
    if server.calls.len() >= server.limits.calls {
        return Err(error_response(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent calls, try again"));
    }
    if request.method() != Method::POST {
        let mut refusal = error_response(StatusCode::METHOD_NOT_ALLOWED, "only POST is supported");
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
        // axum exposes this error as a nested source only.
        Ok(Err(error))
            if error.source().is_some_and(|source| source.to_string().contains("length limit")) =>
        {
            let text = format!("request larger than {} bytes", limits.body);
            Err(error_response(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
        Ok(Err(_)) => Err(error_response(StatusCode::BAD_REQUEST, "incomplete request")),
        Err(_) => {
            let text = format!("request not complete within {} s", limits.body_time.as_secs_f32());
            Err(error_response(StatusCode::REQUEST_TIMEOUT, &text))
        }
    }
}

/// Handles a complete request, even if the caller disconnects.
async fn handle(server: &Server, mut call: AuditEntry, request: Request) -> Response {
    let answer = (server.mcp)(request);
    // Spawned, so that a dropped connection does not drop the call.
    let answered = server.calls.spawn(async move {
        let response = answer.await;
        call.record_status(response.status());
        call.follow(response).await
    });
    answered.await.unwrap_or_else(|error| {
        error!(%error, "call panicked");
        error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal error, see the server's log")
    })
}

fn error_response(status: StatusCode, text: &str) -> Response {
    let plain = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, format!("{text}\n")).into_response()
}
