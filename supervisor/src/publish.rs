//! Publishes the work: policy, push with fallbacks, pull request.

pub mod fallback;
pub mod patterns;
pub mod policy;
pub mod pull_request;
pub mod push;
pub mod save;
pub mod scan;
pub mod text;
pub mod unsaved;
