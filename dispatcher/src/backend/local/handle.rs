//! The backend's handle: its configuration and the root of its state.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;

/// The local backend.
#[derive(Clone, Debug)]
pub struct Local {
    pub(super) root: PathBuf,
    pub(super) config: Arc<Config>,
}

impl Local {
    /// Creates the backend with its state below the configuration's state folder.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self { root: config.state_dir.clone(), config }
    }
}
