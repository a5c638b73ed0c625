//! Errors that end a measurement.

use std::io;
use std::path::PathBuf;

use process::interrupt::Interrupted;
use process::whole;

/// An error that ends a measurement.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what failed, and on what")]
pub enum Error {
    #[error("cannot make files to measure with in {path}: {source}; name a directory that you may write to and that has 1 GiB free", path = .path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error("cannot start {name}: {source}")]
    Start { name: String, source: io::Error },
    #[error(
        "{name} ended ({status}) before it listened on its socket: {said}; its command must have {{socket}} and {{directory}}"
    )]
    Ended { name: String, status: String, said: String },
    #[error(
        "{name} does not listen on its socket after {seconds} seconds; its command must have {{socket}} and {{directory}}"
    )]
    NotListening { name: String, seconds: u64 },
    #[error("cannot drive {name}: {source}; its last message: {said}")]
    Contender {
        name: String,
        source: Box<Error>,
        /// What the daemon said last, or nothing.
        said: String,
    },
    #[error("cannot mount its share: {said}")]
    Mount { said: String },
    #[error("cannot run {tool}: {source}")]
    RunTool { tool: String, source: io::Error },
    #[error("{tool} ended ({status}): {said}")]
    Tool { tool: String, status: String, said: String },
    #[error("{tool} on {who} reported success but did not do its work")]
    Undone { tool: String, who: String },
    #[error("{}", whole(.0))]
    Driver(#[from] driver::Error),
    #[error("the reply of {written} bytes to request {unique} violates virtio-fs")]
    BadReply { unique: u64, written: u32 },
    #[error("{what} failed: {source}")]
    Refused { what: &'static str, source: io::Error },
    #[error("it has no request queue")]
    NoQueue,
    #[error("it takes writes of at most {max_write} bytes, and the workload needs 1 MiB")]
    SmallWrites { max_write: u32 },
    #[error("an operation of a round did not end within {seconds} seconds after the round")]
    Endless { seconds: u64 },
    #[error("{what} returned wrong contents")]
    Contents { what: &'static str },
    #[error("cannot write {path}: {source}", path = .path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: io::Error },
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Not a failure: a signal came.
    #[error("interrupted")]
    Interrupted,
}

impl From<Interrupted> for Error {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

impl Error {
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }
}
