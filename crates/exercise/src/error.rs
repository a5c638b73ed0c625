use std::io;
use std::path::PathBuf;

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The arguments do not fit each other.
    #[error("{0}")]
    Usage(String),

    /// A system call outside of an operation failed.
    #[error("cannot {act} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        act: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// The file system refused an operation.
    #[error("operation {number} ({operation}) failed: {source}; seed {seed}{history}")]
    Refused {
        number: u64,
        operation: String,
        seed: u64,
        source: io::Error,
        /// The operations before it, a line each.
        history: String,
    },

    /// The file does not hold what it should.
    #[error("operation {number} ({operation}): {difference}; seed {seed}{history}")]
    Different {
        number: u64,
        operation: String,
        seed: u64,
        difference: String,
        /// The operations before it, a line each.
        history: String,
    },

    /// An existing file is not one that a run of `random` can go on with.
    #[error("{}: {reason}", path.display())]
    Foreign { path: PathBuf, reason: String },

    /// The awaited text did not come.
    #[error("{text:?} was not at {offset:#x} of {} within {seconds} s", path.display())]
    Late {
        path: PathBuf,
        offset: u64,
        text: String,
        seconds: u64,
    },

    /// Calls that the kernel should refuse were made or could not be prepared; each was told on standard error.
    #[error("{0} calls were not refused")]
    NotRefused(u32),

    /// Standard input or output is broken.
    #[error("cannot use the standard streams: {0}")]
    Stream(#[from] io::Error),
}
