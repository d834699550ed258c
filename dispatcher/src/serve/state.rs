//! The state that all handlers share.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::TokenSource;
use super::limits::Limits;
use crate::error::Error;

/// Checks whether calls can be handled now.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

pub(super) type Mcp = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// State of all handlers; cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) tokens: TokenSource,
    pub(super) limits: Limits,
    pub(super) mcp: Mcp,
    pub(super) check: Check,
    pub(super) calls: TaskTracker,
    pub(super) stopping: CancellationToken,
}

impl Server {
    pub(super) async fn check(&self) -> Result<(), Error> {
        self.tokens.check()?;
        (self.check)().await
    }
}
