//! The gateway between the agent and the model API: it holds the credential and the cost limit.
//!
//! Every process that the agent starts inherits the CLI's environment. That environment
//! therefore holds only a random token, new for each session, that is valid for this gateway
//! alone. The supervisor keeps the credential and reads it again for each request.
//!
//! The gateway admits the requests that the CLI needs, reserves the most that each can cost in
//! the budget of the run, and counts the tokens of the responses itself.

pub mod admit;
pub mod api_error;
pub mod blocks;
pub mod body;
pub mod budget;
pub mod estimate;
pub mod forward;
pub mod headers;
pub mod json;
pub mod ledger;
pub mod meter;
pub mod models;
pub mod prices;
pub mod refusal;
pub mod server;
pub mod upstream;

use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{ModelAuth, SecretSource};
use crate::endpoint::{Endpoint, EndpointListener, ListenPlace};
use crate::process::Environment;
use budget::{ConversationSpending, Spending};
use forward::Forwarder;
use models::Models;
use upstream::{GatewayError, Upstream};

/// Variables with names of models that the operator chose for the CLI.
const MODEL_VARIABLES: [&str; 2] = ["ANTHROPIC_SMALL_FAST_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL"];

/// Prefix and suffix of variables with the model that an alias stands for.
const DEFAULT_MODEL_VARIABLE: (&str, &str) = ("ANTHROPIC_DEFAULT_", "_MODEL");

/// The base URL for requests over a Unix socket; the CLI connects to nothing else then.
const SOCKET_BASE_URL: &str = "http://127.0.0.1";

/// Variable of the CLI with the socket of the model API. Undocumented; measured with 2.1.330.
const SOCKET_VARIABLE: &str = "ANTHROPIC_UNIX_SOCKET";

/// An open gateway; dropping it closes its port or socket.
#[derive(Debug)]
pub struct Gateway {
    endpoint: Endpoint,
    token: String,
    variable: &'static str,
    spending: Spending,
    conversation: String,
    _open: DropGuard,
}

/// What a conversation may use.
#[derive(Clone, Copy, Debug)]
pub struct Allowance<'a> {
    /// The budget of the run.
    pub spending: &'a Spending,
    /// Id of the conversation in the figures of the run.
    pub conversation: &'a str,
    /// The model of the task.
    pub model: &'a str,
}

impl Gateway {
    /// Opens a gateway that adds the model credential of `secrets`.
    ///
    /// Returns `None` for Bedrock and Vertex, where the CLI signs requests itself. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// Returns an error if it cannot listen at `place`, or if the address of the API, a certificate or
    /// the proxy of the environment is invalid.
    pub fn open(
        secrets: &SecretSource,
        auth: &ModelAuth,
        allowance: Allowance<'_>,
        place: &ListenPlace,
    ) -> Result<Option<Self>, GatewayError> {
        let variable = match auth {
            ModelAuth::ApiKey(_) => "ANTHROPIC_API_KEY",
            ModelAuth::Bearer(_) => "ANTHROPIC_AUTH_TOKEN",
            ModelAuth::OAuth(_) => "CLAUDE_CODE_OAUTH_TOKEN",
            ModelAuth::CloudSigned => {
                allowance.spending.remark(
                    "Bedrock and Vertex are not behind the gateway: the agent could read the cloud credential, and the \
                     cost limit relies on the figures of the CLI",
                );
                return Ok(None);
            }
        };
        let Allowance { spending, conversation, model } = allowance;
        let alias = model.trim_end_matches("[1m]").to_ascii_uppercase();
        let (prefix, suffix) = DEFAULT_MODEL_VARIABLE;
        let of_alias = format!("{prefix}{alias}{suffix}");
        let process_env = secrets.process_env();
        let names = MODEL_VARIABLES.into_iter().chain([of_alias.as_str()]);
        let configured: Vec<&str> = names.filter_map(|name| process_env.text(name)).collect();
        let token = format!("pass-{}", uuid::Uuid::new_v4().simple());
        let closed = CancellationToken::new();
        let forwarder = Arc::new(Forwarder {
            token: token.clone(),
            conversation: conversation.to_owned(),
            models: Models::of_task(model, &configured),
            spending: spending.clone(),
            upstream: Upstream::new(secrets)?,
            known: Arc::default(),
            closed: closed.clone(),
        });
        let listener = EndpointListener::bind(place, "gateway").map_err(GatewayError::Listen)?;
        let endpoint = listener.endpoint().clone();
        let open = closed.clone().drop_guard();
        let handler = move |request| Arc::clone(&forwarder).answer(request);
        tokio::spawn(server::serve(listener, handler, closed.clone()));
        tokio::spawn(closed.run_until_cancelled_owned(ledger::keep_ledger(spending.clone())));
        Ok(Some(Self {
            endpoint,
            token,
            variable,
            spending: spending.clone(),
            conversation: conversation.to_owned(),
            _open: open,
        }))
    }

    /// Returns what the conversation of this gateway spent.
    #[must_use]
    pub fn spent(&self) -> ConversationSpending {
        self.spending.conversation(&self.conversation)
    }

    /// Replaces the credential and the base URL in `environment` with those of the gateway.
    pub fn replace_credential(&self, environment: &mut Environment) {
        for name in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_CUSTOM_HEADERS",
            "CLAUDE_CODE_OAUTH_TOKEN",
            SOCKET_VARIABLE,
        ] {
            environment.remove(std::ffi::OsStr::new(name));
        }
        environment.insert(self.variable.into(), self.token.clone().into());
        let base_url = match &self.endpoint {
            Endpoint::Loopback(address) => format!("http://{address}"),
            Endpoint::Socket(path) => {
                environment.insert(SOCKET_VARIABLE.into(), path.into());
                SOCKET_BASE_URL.to_owned()
            }
        };
        environment.insert("ANTHROPIC_BASE_URL".into(), base_url.into());
        // Requests to the gateway must bypass any proxy.
        for name in ["NO_PROXY", "no_proxy"] {
            let existing = environment.get(std::ffi::OsStr::new(name)).filter(|hosts| !hosts.is_empty());
            let mut hosts = existing.map_or_else(Default::default, |existing| {
                let mut hosts = existing.clone();
                hosts.push(",");
                hosts
            });
            hosts.push("127.0.0.1");
            environment.insert(name.into(), hosts);
        }
    }
}

#[cfg(test)]
mod tests;
