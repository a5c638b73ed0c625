//! Errors that end a daemon.

/// Why a device cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The device itself says why.
    #[error(transparent)]
    Device(Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot serve the device any longer: {reason}; restart innkeeper")]
    Serve { reason: String },
    #[error("{0}")]
    Confinement(#[from] confinement::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
}
