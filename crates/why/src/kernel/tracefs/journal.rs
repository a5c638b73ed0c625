//! The journal of a session: how each change is undone, written before the change is made.
//!
//! It is a file under a lock that the session holds. A process that gets the lock and finds steps undoes them: the
//! session's guardian as soon as the session is gone, or, if both were killed, the next session on this machine. The
//! file lies where it disappears when its kernel does.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::files::{self, Tracefs};

/// Where there is a place for files that last till the next boot.
const PLACES: [&str; 2] = ["/run", "/dev/shm"];
/// Ours in such a place; nobody else may write there, since what is read there is done.
const DIRECTORY: &str = "innkeeper-why";
/// A file of a dying process may keep a directory busy; that long, ten milliseconds a round.
const ROUNDS: u32 = 1000;
/// The same for what was left behind a while ago.
const ROUNDS_LATER: u32 = 100;
/// What a session sets the file `current_tracer` to.
pub(super) const TRACER: &str = "function_graph";

/// How one change is taken back. Files are named as below the top of tracefs.
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

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// A new, empty one.
    pub(super) fn create() -> Result<Self, Error> {
        let mut refused = None;
        for place in PLACES {
            match Self::create_in(&Path::new(place).join(DIRECTORY)) {
                Ok(journal) => return Ok(journal),
                Err(error) => refused = Some(error),
            }
        }
        Err(Error::Journal(
            refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
        ))
    }

    pub(super) fn create_in(directory: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Locked, so that nobody takes the new file for one that was left behind.
        let _creating = lock_directory(directory)?;
        // Another namespace may have a process of this number.
        for attempt in 0u32.. {
            let path = directory.join(format!("{}-{attempt}", process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    file.lock()?;
                    return Ok(Self { path, file });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes how to take back the step that is about to be made.
    pub(super) fn note(&mut self, undo: &Undo) -> io::Result<()> {
        note(&mut self.file, undo)
    }

    /// Takes back what was noted, without a guardian. Gives a sentence for each step that could not be.
    pub(super) fn take_back(self, top: &Tracefs) -> io::Result<Vec<String>> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        take_all_back(top, &mut file, &self.path, Else::Kept)
    }

    /// Lets the guardian begin.
    pub(super) fn close(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

fn note(file: &mut File, undo: &Undo) -> io::Result<()> {
    let line = serde_json::to_string(undo)? + "\n";
    file.write_all(line.as_bytes())
}

/// Waits until the session that writes this journal is gone, and takes back what it says. Gives a sentence for each step
/// that could not be.
pub(super) fn guard(top: &Tracefs, path: &Path) -> io::Result<Vec<String>> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        // The session was killed at once, and another one has seen to it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    file.lock()?;
    take_all_back(top, &mut file, path, Else::Kept)
}

/// What was found of sessions that did not put everything back: they were killed together with their guardians, or could not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Healed {
    /// How many of them are put back.
    pub(super) sessions: usize,
    /// A sentence for each step that could not be taken back, for the last time.
    pub(super) failures: Vec<String>,
}

impl Healed {
    /// For the user, a sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.sessions > 0 {
            notes.push(
                "tracefs was restored after an earlier run, which was killed together with its guardian or could not"
                    .to_owned(),
            );
        }
        let left = self.failures.iter();
        notes.extend(left.map(|failure| format!("tracefs is not restored after an earlier run: {failure}")));
        notes
    }
}

/// Takes back what killed sessions left behind.
pub(super) fn heal(top: &Tracefs) -> Healed {
    let mut healed = Healed::default();
    for place in PLACES {
        // What cannot be looked at holds no journal of ours.
        if let Ok(found) = heal_in(top, &Path::new(place).join(DIRECTORY)) {
            healed.sessions += found.sessions;
            healed.failures.extend(found.failures);
        }
    }
    healed
}

pub(super) fn heal_in(top: &Tracefs, directory: &Path) -> io::Result<Healed> {
    let mut healed = Healed::default();
    let _looking = lock_directory(directory)?;
    for (mut file, path) in left_behind(directory)? {
        let failures = take_all_back(top, &mut file, &path, Else::Dropped)?;
        healed.sessions += usize::from(failures.is_empty());
        healed.failures.extend(failures);
    }
    Ok(healed)
}

/// How many sessions left something behind.
pub(super) fn sessions_left_behind() -> usize {
    let count = |place: &&str| {
        let directory = Path::new(place).join(DIRECTORY);
        let _looking = lock_directory(&directory).ok()?;
        Some(left_behind(&directory).ok()?.len())
    };
    PLACES.iter().filter_map(count).sum()
}

/// The journals that nobody holds, locked.
fn left_behind(directory: &Path) -> io::Result<Vec<(File, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => found.push((file, path)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(found)
}

/// Locks the directory of journals, if it is one that only root may write to.
fn lock_directory(directory: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
        .open(directory)?;
    let metadata = file.metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("others may write to {}", directory.display())));
    }
    file.lock()?;
    Ok(file)
}

/// What becomes of steps that cannot be taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Else {
    /// The next session tries once more.
    Kept,
    /// Who knows what others have set meanwhile.
    Dropped,
}

/// Takes back the steps of a journal, the last one first, and removes it, or leaves in it those that failed. Another one that
/// waits for its lock finds the same.
fn take_all_back(top: &Tracefs, file: &mut File, path: &Path, or_else: Else) -> io::Result<Vec<String>> {
    file.rewind()?;
    // The last line may be half a line, if the writer was killed in the middle of it: that step was not made.
    let lines = BufReader::new(&*file).lines().map_while(Result::ok);
    let steps: Vec<Undo> = lines.filter_map(|line| serde_json::from_str(&line).ok()).collect();
    let mut failures = Vec::new();
    let mut left = Vec::new();
    for step in steps.iter().rev() {
        let rounds = if or_else == Else::Kept { ROUNDS } else { ROUNDS_LATER };
        if let Err(error) = take_back(top, step, rounds) {
            failures.push(error.to_string());
            left.insert(0, step);
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    if !left.is_empty() && or_else == Else::Kept {
        left.into_iter().try_for_each(|step| note(file, step))?;
        return Ok(failures);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(failures),
    }
}

fn take_back(top: &Tracefs, step: &Undo, rounds: u32) -> Result<(), Error> {
    if let Undo::Write(path, _) = step
        && path.ends_with("current_tracer")
        && top.read(path).is_ok_and(|tracer| !tracer.starts_with(TRACER))
    {
        // It is somebody else's by now, or was never set.
        return Ok(());
    }
    let mut round = 0;
    loop {
        let done = match step {
            Undo::Write(path, text) => files::write(&top.path(path), text, false),
            Undo::Append(path, text) => files::write(&top.path(path), text, true),
            Undo::Remove(path) => remove(&top.path(path)),
        };
        match done {
            Err(Error::File { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) && round < rounds => {
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
    use super::*;

    /// A directory that looks like tracefs, and one for journals.
    fn places() -> (tempfile::TempDir, Tracefs, PathBuf) {
        let base = tempfile::tempdir().unwrap();
        let (top, journals) = (base.path().join("tracing"), base.path().join("journals"));
        fs::create_dir_all(top.join("instances/why")).unwrap();
        fs::write(top.join("current_tracer"), "function_graph").unwrap();
        (base, Tracefs::at(top), journals)
    }

    fn steps() -> [Undo; 4] {
        [
            Undo::Write("current_tracer".into(), "nop".to_owned()),
            Undo::Append("current_tracer".into(), "+".to_owned()),
            Undo::Remove("instances/why".into()),
            Undo::Remove("instances/never-made".into()),
        ]
    }

    fn unwritable() -> Undo {
        Undo::Write("instances".into(), "nop".to_owned())
    }

    /// A journal that is being written, with these steps.
    fn noted(journals: &Path, steps: &[Undo]) -> Journal {
        let mut journal = Journal::create_in(journals).unwrap();
        steps.iter().for_each(|step| journal.note(step).unwrap());
        journal
    }

    #[test]
    fn steps_are_taken_back_last_first_and_half_a_line_is_no_step() {
        let (_base, top, journals) = places();
        let mut journal = noted(&journals, &steps());
        journal.file.write_all(b"{\"remove\":\"").unwrap();
        journal.close().unwrap();
        assert_eq!(guard(&top, journal.path()).unwrap(), Vec::<String>::new());
        assert_eq!(top.read("current_tracer").unwrap(), "nop");
        assert!(!top.path("instances/why").exists());
        assert!(!journal.path().exists(), "what is done is not done again");
    }

    #[test]
    fn a_step_that_cannot_be_taken_back_is_told() {
        let (_base, top, journals) = places();
        let journal = noted(&journals, &[unwritable(), steps()[0].clone()]);
        journal.close().unwrap();
        let told = guard(&top, journal.path()).unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("cannot write \"nop\" to"), "{told:?}");
        assert_eq!(top.read("current_tracer").unwrap(), "nop");

        drop(journal);
        let tried = heal_in(&top, &journals).unwrap();
        assert_eq!((tried.sessions, tried.failures), (0, told), "once more");
        assert_eq!(heal_in(&top, &journals).unwrap(), Healed::default());
    }

    #[test]
    fn a_step_that_failed_is_taken_back_by_the_next_session_if_it_can_be() {
        let (_base, top, journals) = places();
        let journal = noted(&journals, &[unwritable()]);
        journal.close().unwrap();
        assert_eq!(guard(&top, journal.path()).unwrap().len(), 1);
        drop(journal);
        fs::remove_dir_all(top.path("instances")).unwrap();
        fs::write(top.path("instances"), "").unwrap();
        assert_eq!(heal_in(&top, &journals).unwrap().sessions, 1);
        assert_eq!(top.read("instances").unwrap(), "nop");
    }

    #[test]
    fn a_tracer_that_is_another_by_now_is_left_alone() {
        let (_base, top, journals) = places();
        let journal = noted(&journals, &steps()[..1]);
        drop(journal);
        fs::write(top.path("current_tracer"), "function").unwrap();
        assert_eq!(heal_in(&top, &journals).unwrap().sessions, 1);
        assert_eq!(top.read("current_tracer").unwrap(), "function");
    }

    #[test]
    fn the_next_session_takes_back_what_a_killed_one_left_and_nothing_of_one_that_runs() {
        let (_base, top, journals) = places();
        let journal = noted(&journals, &steps()[..1]);
        assert_eq!(heal_in(&top, &journals).unwrap(), Healed::default());
        assert_eq!(top.read("current_tracer").unwrap(), "function_graph");

        // A killed process closes its files, which ends its lock.
        let path = journal.path().to_owned();
        drop(journal);
        assert_eq!(heal_in(&top, &journals).unwrap().sessions, 1);
        assert_eq!(top.read("current_tracer").unwrap(), "nop");
        assert!(!path.exists());
        assert_eq!(heal_in(&top, &journals).unwrap().sessions, 0);
    }

    #[test]
    fn a_directory_that_others_may_write_to_holds_no_journal() {
        use std::os::unix::fs::PermissionsExt;
        let (_base, top, journals) = places();
        fs::create_dir(&journals).unwrap();
        fs::set_permissions(&journals, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(journals.join("1"), "{\"write\":[\"current_tracer\",\"nop\"]}\n").unwrap();
        assert!(heal_in(&top, &journals).is_err());
        assert!(Journal::create_in(&journals).is_err());
        assert_eq!(top.read("current_tracer").unwrap(), "function_graph");
    }
}
