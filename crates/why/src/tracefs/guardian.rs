//! The process that puts tracefs back, whatever becomes of the one that traces.
//!
//! It reads a journal of steps from its standard input. At its end, which comes also when the writer is killed, it takes
//! them back, the last one first. There is no other way back: a normal end closes the pipe and waits.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, files};

/// A file of a dying process may keep a directory busy; that long, ten milliseconds a round.
const ROUNDS: u32 = 1000;

/// How one change is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Undo {
    /// Write this, in place of all that is there.
    Write(PathBuf, String),
    /// Write this, beside what is there.
    Append(PathBuf, String),
    /// Remove this directory.
    Remove(PathBuf),
}

/// The tracing process's end of the journal.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
}

impl Guardian {
    /// Starts `command`, which must call [`run`].
    pub(super) fn start(mut command: Command) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt;
        // A group of its own: Ctrl-C is for the one that traces.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let process = command.spawn().map_err(Error::Guardian)?;
        Ok(Self { process })
    }

    /// Notes how to take back the step that is about to be made.
    pub(super) fn note(&mut self, undo: &Undo) -> Result<(), Error> {
        let pipe = self.process.stdin.as_mut();
        let pipe = pipe.ok_or_else(|| Error::Guardian(io::ErrorKind::BrokenPipe.into()))?;
        let line = serde_json::to_string(undo).map_err(|error| Error::Guardian(error.into()))?;
        writeln!(pipe, "{line}").map_err(Error::Guardian)
    }

    /// Has everything put back, and waits for it. Whether all went well.
    pub(super) fn finish(&mut self) -> bool {
        drop(self.process.stdin.take());
        self.process.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Reads the journal to its end and takes back what it says. Gives a sentence for each step that could not be.
pub fn run(journal: impl BufRead) -> Vec<String> {
    let mut steps = Vec::new();
    let mut failures = Vec::new();
    for line in journal.lines() {
        // The last line may be half a line, if the writer was killed in the middle of it: that step was not made.
        let Ok(line) = line else { break };
        if let Ok(step) = serde_json::from_str::<Undo>(&line) {
            steps.push(step);
        }
    }
    for step in steps.iter().rev() {
        if let Err(error) = take_back(step) {
            failures.push(error.to_string());
        }
    }
    failures
}

fn take_back(step: &Undo) -> Result<(), Error> {
    let mut round = 0;
    loop {
        let done = match step {
            Undo::Write(path, text) => files::write(path, text, false),
            Undo::Append(path, text) => files::write(path, text, true),
            Undo::Remove(path) => remove(path),
        };
        match done {
            Err(Error::File { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) && round < ROUNDS => {
                round += 1;
                sleep(Duration::from_millis(10));
            }
            // The step was noted and never made.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_dir(path).map_err(|source| Error::File {
        doing: "remove".to_owned(),
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn steps_are_taken_back_last_first_and_half_a_line_is_no_step() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("current_tracer");
        let inner = directory.path().join("instance");
        fs::write(&file, "function_graph").unwrap();
        fs::create_dir(&inner).unwrap();
        let steps = [
            Undo::Write(file.clone(), "nop".to_owned()),
            Undo::Append(file.clone(), "+".to_owned()),
            Undo::Remove(inner.clone()),
            Undo::Remove(directory.path().join("never-made")),
        ];
        let mut journal: String = steps
            .iter()
            .map(|step| serde_json::to_string(step).unwrap() + "\n")
            .collect();
        journal.push_str("{\"remove\":\"");
        assert_eq!(run(Cursor::new(journal)), Vec::<String>::new());
        assert_eq!(fs::read_to_string(&file).unwrap(), "nop");
        assert!(!inner.exists());
    }

    #[test]
    fn a_step_that_cannot_be_taken_back_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let step = Undo::Write(directory.path().to_owned(), "nop".to_owned());
        let told = run(Cursor::new(serde_json::to_string(&step).unwrap()));
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("cannot write \"nop\" to"), "{told:?}");
    }
}
