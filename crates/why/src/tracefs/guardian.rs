//! The process that puts tracefs back, whatever becomes of the one that traces.
//!
//! It waits for the lock of the session's journal, which it gets when the session ends, also when that is
//! killed. There is no other way back: a normal end gives up the lock and waits.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::journal::{self, Journal, Undo};
use super::{Error, Tracefs};

/// The tracing process's end.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
    journal: Journal,
}

impl Guardian {
    /// Starts `command`, which must call [`run`] with the argument that is added to it.
    pub(super) fn start(mut command: Command) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt;
        let journal = Journal::create()?;
        command.arg(journal.path()).stdin(Stdio::null()).stdout(Stdio::null());
        // A group of its own: Ctrl-C is for the one that traces.
        let process = command.process_group(0).spawn().map_err(Error::Guardian)?;
        Ok(Self { process, journal })
    }

    /// Notes how to take back the step that is about to be made.
    pub(super) fn note(&mut self, undo: &Undo) -> Result<(), Error> {
        self.journal.note(undo).map_err(Error::Journal)
    }

    /// Has everything put back, and waits for it. Whether all went well.
    pub(super) fn finish(&mut self) -> bool {
        let closed = self.journal.close();
        closed.is_ok() && self.process.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Waits for the end of the session whose journal this is, and puts tracefs back. Gives a sentence for each step that could
/// not be taken back.
///
/// # Errors
/// There is no such journal, or no tracefs.
pub fn run(journal: &Path) -> Result<Vec<String>, Error> {
    journal::guard(&Tracefs::find()?, journal).map_err(Error::Journal)
}
