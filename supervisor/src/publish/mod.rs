//! What may be pushed, and what is said about it.

pub mod home;
pub mod ladder;
pub mod patterns;
pub mod policy;
pub mod pull_request;
pub mod save;
pub mod scan;
pub mod text;
