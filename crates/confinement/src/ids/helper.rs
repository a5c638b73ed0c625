//! The process outside that has newuidmap(1) and newgidmap(1) map ranges of ids.
//!
//! The kernel takes maps of ranges only from a process outside of the namespace that may act for all of the ids. The two programs
//! may, and check that the ranges were granted. Whoever makes the namespace cannot run them any more, so a child waits until it has.
#![expect(unsafe_code, reason = "fork(2) has no safe wrapper")]

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use rustix::thread::no_new_privs;

use super::range::IdRange;
use crate::Error;

/// What the child says of success. No error's message reads so.
const MAPPED: &str = "mapped";

/// A child that waits for the namespace.
pub(crate) struct Helper {
    child: Pid,
    /// `None` once the child may go on.
    go: Option<PipeWriter>,
    answer: PipeReader,
}

impl Helper {
    /// To be called by a process of one thread.
    pub(super) fn start(users: &[IdRange], groups: &[IdRange]) -> Result<Helper, Error> {
        if no_new_privs().map_err(|errno| Error::Helper(errno.to_string()))? {
            return Err(Error::Helper(
                "no-new-privs is set, under which newuidmap has no rights".into(),
            ));
        }
        let pipe = || io::pipe().map_err(|error| Error::Helper(error.to_string()));
        let ((go_ahead, go), (answer, say)) = (pipe()?, pipe()?);
        let of = getpid();
        // SAFETY: a process of one thread leaves its child no lock that another thread holds.
        let child = unsafe { libc::fork() };
        if child < 0 {
            return Err(Error::Helper(io::Error::last_os_error().to_string()));
        }
        let Some(child) = Pid::from_raw(child) else {
            drop((go, answer));
            work(go_ahead, say, of, users, groups)
        };
        Ok(Helper {
            child,
            go: Some(go),
            answer,
        })
    }

    /// Has it map the ids of the namespace that this process has just made.
    pub(super) fn map(mut self) -> Result<(), Error> {
        let cannot = |error: io::Error| Error::Helper(error.to_string());
        if let Some(mut go) = self.go.take() {
            go.write_all(&[1]).map_err(cannot)?;
        }
        let mut said = String::new();
        self.answer.read_to_string(&mut said).map_err(cannot)?;
        match said.as_str() {
            MAPPED => Ok(()),
            "" => Err(Error::Helper("the process that maps them ended early".into())),
            _ => Err(Error::Helper(said)),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Without leave to go on, it ends.
        self.go = None;
        let _ended = waitpid(Some(self.child), WaitOptions::empty());
    }
}

/// The child's life.
fn work(mut go_ahead: PipeReader, mut say: PipeWriter, of: Pid, users: &[IdRange], groups: &[IdRange]) -> ! {
    let goes_on = go_ahead.read(&mut [0]).is_ok_and(|bytes| bytes == 1);
    let told = if goes_on {
        let done = run("newuidmap", of, users).and_then(|()| run("newgidmap", of, groups));
        let answer = done.map_or_else(|why| why, |()| MAPPED.to_owned());
        say.write_all(answer.as_bytes()).is_ok()
    } else {
        false
    };
    // SAFETY: ends the child at once, with nothing of its parent's undone.
    unsafe { libc::_exit(i32::from(!told)) }
}

fn run(program: &str, of: Pid, ranges: &[IdRange]) -> Result<(), String> {
    let numbers = ranges
        .iter()
        .flat_map(|range| [range.inside, range.outside, range.count]);
    let output = Command::new(program)
        .arg(of.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            match said.lines().map(str::trim).rfind(|line| !line.is_empty()) {
                Some(line) => Err(line.to_owned()),
                None => Err(format!("{program} failed ({})", output.status)),
            }
        }
        // The latter is what a directory of PATH comes to that this user may not search.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Err(format!("no {program} in PATH that this user may run"))
        }
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}
