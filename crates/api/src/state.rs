//! What handlers work with: cheap clones of handles, made once per worker.

use edge::Phase;
use tokio::sync::watch;

use crate::catalogue::Catalogue;
use crate::dependencies::Dependencies;
use crate::limits::Limits;

/// The handles of one worker.
#[derive(Clone)]
pub struct AppState {
    /// The product catalogue.
    pub catalogue: Catalogue,
    /// Decide before any other work.
    pub limits: Limits,
    /// Verifies bearer tokens.
    pub keys: auth::Keys,
    /// What all of this depends on, for the health report.
    pub dependencies: Dependencies,
    /// Whether the service is ending, which `/readyz` tells.
    pub phase: watch::Receiver<Phase>,
    /// The slot of this worker.
    pub worker_id: u32,
    /// The version of this build.
    pub version: &'static str,
}
