//! The guardian: a process that restores tracefs, however the tracing process ends.
//!
//! It waits for the lock of the session's journal, which it gets when the session ends, even if the session is
//! killed. There is no other restore path: a normal end releases the lock and waits.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::error::Error;
use super::files::Tracefs;
use super::journal::{self, Journal, Undo};

/// The tracing process's end.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
    journal: Journal,
    top: Tracefs,
    finished: bool,
}

impl Guardian {
    /// Starts `command`, which must call [`run`] with the argument that is added to it.
    pub(super) fn start(mut command: Command, top: Tracefs) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt;
        let journal = Journal::create()?;
        command.arg(journal.path()).stdin(Stdio::null()).stdout(Stdio::null());
        // A group of its own: Ctrl-C is for the one that traces.
        let process = command.process_group(0).spawn().map_err(Error::Guardian)?;
        Ok(Self {
            process,
            journal,
            top,
            finished: false,
        })
    }

    /// Notes how to take back the step that is about to be made.
    pub(super) fn note(&mut self, undo: &Undo) -> Result<(), Error> {
        self.journal.note(undo).map_err(Error::Journal)
    }

    /// Has everything put back, and waits for it. Gives a sentence for each step that could not be taken back and that the
    /// guardian has not told of.
    pub(super) fn finish(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.finished, true) {
            return Vec::new();
        }
        let put_back = self.journal.close().and_then(|()| self.process.wait());
        match put_back {
            // What it could not do it has said.
            Ok(status) if status.code().is_some() => Vec::new(),
            // It was killed.
            _ => journal::guard(&self.top, self.journal.path()).unwrap_or_else(|error| vec![error.to_string()]),
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_killed_guardian_left_is_put_back_without_it() {
        let top = tempfile::tempdir().unwrap();
        let setting = top.path().join("tracing_on");
        fs::write(&setting, "0").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "kill -KILL $$"]);
        let mut guardian = Guardian::start(command, Tracefs::at(top.path())).unwrap();
        guardian
            .note(&Undo::Write("tracing_on".into(), "1".to_owned()))
            .unwrap();
        assert_eq!(guardian.finish(), Vec::<String>::new());
        assert_eq!(fs::read_to_string(setting).unwrap(), "1");
        assert!(!guardian.journal.path().exists());
    }
}
