//! Answers one request: checks it, reserves its cost, forwards it and counts the response.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream::{BoxStream, Stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::admit::admit;
use super::api_error::{self, ApiError};
use super::body::{MessageRequest, Purpose};
use super::budget::{Ask, Reservation, Settlement, Spending};
use super::estimate::{CONTEXT_WINDOW, KnownPrompts};
use super::headers::{request_headers, response_headers};
use super::meter::{Answer, ResponseMeter};
use super::models::Models;
use super::prices::{NanoUsd, Price, WEB_SEARCH, find_price, price_or_dearest};
use super::refusal::{Refusal, RefusalKind};
use super::upstream::Upstream;

/// Largest body of a request; the API accepts no larger one.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// Time to receive a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Most tokens that the results of one web search add to the prompt.
const SEARCH_RESULT_TOKENS: u64 = 50_000;

/// What the gateway of one conversation needs for each request.
#[derive(Debug)]
pub struct Forwarder {
    pub token: String,
    /// Id of the conversation in the figures of the run.
    pub conversation: String,
    pub models: Models,
    pub spending: Spending,
    pub upstream: Upstream,
    pub known: Arc<Mutex<KnownPrompts>>,
    pub closed: CancellationToken,
}

impl Forwarder {
    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request) -> Response {
        match self.forward(request).await {
            Ok(response) => response,
            Err(refusal) => {
                if refusal.kind == RefusalKind::Forbidden {
                    self.spending.record_refusal(&self.conversation, &refusal.message);
                }
                refusal.response()
            }
        }
    }

    async fn forward(&self, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        // A connection can outlive its gateway.
        if self.closed.is_cancelled() {
            return Err(Refusal::new(RefusalKind::Unauthorized, "the gateway is closed"));
        }
        let purpose = admit(&parts, &self.token)?;
        let body = receive(body).await?;
        let mut message = MessageRequest::parse(&body, purpose, &self.models)?;
        drop(body);
        let headers = request_headers(&parts.headers);
        self.remark_removed("field", &message.removed);
        self.remark_removed("feature", &headers.removed);
        if purpose == Purpose::CountTokens {
            return self.count_tokens(headers.headers, &message).await;
        }
        let is_subagent = parts.headers.contains_key("x-claude-code-agent-id");
        let (reservation, call) = self.reserve(&mut message, is_subagent).await?;
        match self.upstream.send(purpose, headers.headers, message.to_bytes()).await {
            Ok(response) => self.pass(response, reservation, call),
            Err((refusal, may_be_received)) => {
                if !may_be_received {
                    reservation.release();
                }
                Err(refusal)
            }
        }
    }

    fn remark_removed(&self, kind: &str, names: &BTreeSet<String>) {
        for name in names {
            self.spending.remark(&format!("the gateway removed the unknown {kind} `{name}` from requests"));
        }
    }

    /// Forwards a count of tokens, which costs nothing.
    async fn count_tokens(&self, headers: HeaderMap, message: &MessageRequest) -> Result<Response, Refusal> {
        let sent = self.upstream.send(Purpose::CountTokens, headers, message.to_bytes()).await;
        let response = sent.map_err(|(refusal, _)| refusal)?;
        let (status, headers) = (status_of(&response)?, response_headers(response.headers()));
        Ok(respond(status, headers, Body::from_stream(response.bytes_stream())))
    }

    /// Reserves the most that a request can cost, and limits its output and searches to it.
    async fn reserve(
        &self,
        message: &mut MessageRequest,
        is_subagent: bool,
    ) -> Result<(Reservation, Call), Refusal> {
        let price = price_or_dearest(&message.model);
        if find_price(&message.model).is_none() {
            self.spending.remark(&format!(
                "the price of the model `{}` is unknown; it is counted like the dearest known one",
                super::json::short(&message.model)
            ));
        }
        let estimate = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.estimate(&message.model, &message.prompt)
        };
        let caches_hour = message.caches_hour;
        let input_of = |searches: u64| most_input_cost(&price, estimate.max_tokens, searches, caches_hour);
        if let Some(available) = self.spending.available() {
            // As many searches as a quarter of the rest can pay, at least one.
            let fits = |searches: &u64| input_of(*searches) <= available / 4;
            let searches = (1..=message.web_searches.min(8)).rev().find(fits).unwrap_or(1);
            message.limit_web_searches(searches);
        }
        let prompt = estimate.max_tokens + message.web_searches.saturating_mul(SEARCH_RESULT_TOKENS);
        let reservation = self
            .spending
            .reserve(Ask {
                conversation: &self.conversation,
                input: input_of(message.web_searches),
                output_token: price.rates(prompt).output,
                max_tokens: message.max_tokens,
            })
            .await?;
        message.limit_output(reservation.max_tokens);
        let call = Call {
            model: message.model.clone(),
            is_turn: message.offers_tools && !is_subagent,
            remember: (message.web_searches == 0).then_some(estimate.fingerprint),
            known: Arc::clone(&self.known),
        };
        Ok((reservation, call))
    }

    /// Passes a response to the agent and settles its reservation.
    fn pass(
        &self,
        response: reqwest::Response,
        reservation: Reservation,
        call: Call,
    ) -> Result<Response, Refusal> {
        let status = match status_of(&response) {
            Ok(status) => status,
            Err(refusal) => {
                reservation.release();
                return Err(refusal);
            }
        };
        let headers = response_headers(response.headers());
        if !status.is_success() {
            // The API charges nothing for an error.
            reservation.release();
            let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let read = ErrorReader {
                bytes: response.bytes_stream().boxed(),
                status: status.as_u16(),
                retry_after: retry_after.map(str::to_owned),
                kept: Vec::new(),
                open: call.is_turn.then(|| (self.spending.clone(), self.conversation.clone())),
            };
            return Ok(respond(status, headers, Body::from_stream(read)));
        }
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_stream = content_type.starts_with("text/event-stream");
        let metered = Metered {
            bytes: response.bytes_stream().boxed(),
            open: Some((ResponseMeter::new(is_stream), reservation, call)),
        };
        Ok(respond(status, headers, Body::from_stream(metered)))
    }
}

/// Returns the most that a request pays besides its answer.
fn most_input_cost(price: &Price, prompt_tokens: u64, searches: u64, caches_hour: bool) -> NanoUsd {
    // The API reads the prompt once, and once more after each search, with the results so far.
    let mut cost = searches.saturating_mul(WEB_SEARCH);
    for round in 0..=searches {
        let tokens =
            prompt_tokens.saturating_add(round.saturating_mul(SEARCH_RESULT_TOKENS)).min(CONTEXT_WINDOW);
        let rates = price.rates(tokens);
        // The dearest that a token of the prompt can be: written to the cache.
        let rate = if caches_hour { rates.cache_write_1h } else { rates.cache_write_5m };
        cost = cost.saturating_add(tokens.saturating_mul(rate));
    }
    cost
}

async fn receive(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let is_large = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("length limit exceeded"));
            let kind = if is_large { RefusalKind::TooLarge } else { RefusalKind::Malformed };
            Err(Refusal::new(kind, "the body is too large or incomplete"))
        }
        Err(_) => Err(Refusal::new(RefusalKind::Malformed, "the body did not arrive in time")),
    }
}

/// Returns the status of a response.
///
/// # Errors
/// Refuses redirects, which the gateway does not follow and the CLI must not either.
fn status_of(response: &reqwest::Response) -> Result<StatusCode, Refusal> {
    let status = response.status();
    if status.is_redirection() {
        return Err(Refusal::forbidden("the model API redirects to another address, which is not followed"));
    }
    Ok(status)
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What is known about a request when its response arrives.
struct Call {
    model: String,
    is_turn: bool,
    /// Fingerprint of its prompt, if the response tells the tokens of just this prompt.
    remember: Option<[u8; 32]>,
    known: Arc<Mutex<KnownPrompts>>,
}

impl Call {
    /// Settles the reservation with what the response reported.
    fn settle(self, answer: &Answer, reservation: Reservation) {
        let requested = price_or_dearest(&self.model);
        let answered = find_price(&answer.model).unwrap_or(requested);
        let cost = answer.tokens.cost(&requested).max(answer.tokens.cost(&answered));
        if let Some(fingerprint) = self.remember {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(fingerprint, answer.tokens.prompt());
        }
        let (model, is_turn) = (self.model.as_str(), self.is_turn);
        reservation.settle(&Settlement { model, tokens: answer.tokens, cost, is_turn });
    }
}

/// A response that is counted while it passes, and settled at its end or when the agent hangs up.
struct Metered {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    open: Option<(ResponseMeter, Reservation, Call)>,
}

impl Metered {
    fn settle(&mut self) {
        let Some((meter, reservation, call)) = self.open.take() else { return };
        // Without the usage of a complete response, dropping the reservation makes it cost all of it.
        if let Some(answer) = meter.finish() {
            call.settle(&answer, reservation);
        }
    }
}

impl Stream for Metered {
    type Item = reqwest::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = self.bytes.poll_next_unpin(context);
        match &next {
            std::task::Poll::Ready(Some(Ok(bytes))) => {
                let is_complete = self.open.as_mut().is_some_and(|(meter, ..)| {
                    meter.push(bytes);
                    meter.is_complete()
                });
                // The agent may send its next request before the end of the stream is seen.
                if is_complete {
                    self.settle();
                }
            }
            std::task::Poll::Ready(Some(Err(_)) | None) => self.settle(),
            std::task::Poll::Pending => {}
        }
        next
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.settle();
    }
}

/// An error response that is read while it passes, and recorded when it is complete.
struct ErrorReader {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    status: u16,
    retry_after: Option<String>,
    kept: Vec<u8>,
    /// Where the error is recorded; taken when it is.
    open: Option<(Spending, String)>,
}

impl ErrorReader {
    fn push(&mut self, bytes: &[u8]) {
        let room = api_error::MAX_BODY_BYTES.saturating_sub(self.kept.len());
        let kept = &bytes[..bytes.len().min(room)];
        self.kept.extend_from_slice(kept);
        // The CLI may exit before the end of the stream is seen.
        if kept.trim_ascii_end().ends_with(b"}") {
            let parsed =
                ApiError::parse(self.status, self.retry_after.as_deref(), &self.kept, Timestamp::now());
            parsed.into_iter().for_each(|error| self.record(error));
        }
    }

    fn record(&mut self, error: ApiError) {
        if let Some((spending, conversation)) = self.open.take() {
            spending.record_api_error(&conversation, error);
        }
    }
}

impl Drop for ErrorReader {
    fn drop(&mut self) {
        if self.open.is_some() {
            // Cut, too long, or not of the API's format.
            let retry_after = self.retry_after.as_deref();
            self.record(ApiError::without_body(self.status, retry_after, Timestamp::now()));
        }
    }
}

impl Stream for ErrorReader {
    type Item = reqwest::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let next = self.bytes.poll_next_unpin(context);
        if let std::task::Poll::Ready(Some(Ok(bytes))) = &next
            && self.open.is_some()
        {
            self.push(bytes);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_search_reserves_its_rounds() {
        let price = find_price("claude-sonnet-5-5").unwrap();
        assert_eq!(most_input_cost(&price, 1_000, 0, false), 1_000 * 2_500);
        assert_eq!(most_input_cost(&price, 1_000, 0, true), 1_000 * 4_000);
        let one = most_input_cost(&price, 1_000, 1, true);
        assert_eq!(one, 10_000_000 + (1_000 + 51_000) * 4_000);
        assert!(most_input_cost(&price, 1_000, 8, true) > 9 * one);
        assert!(most_input_cost(&price, u64::MAX, 3, true) <= 4 * CONTEXT_WINDOW * 4_000 + 30_000_000);
    }
}
