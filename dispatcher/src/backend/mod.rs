//! Where runs run.

pub mod local;
