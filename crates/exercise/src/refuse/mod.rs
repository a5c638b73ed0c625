//! System calls that the kernel refuses, one per case, each made by its own process as its last action.
//!
//! They are the test cases of `innkeeper why`. Each printed line names the process, its call and the result, so that
//! the answers can be compared with facts from the kernel's source.
#![expect(
    unsafe_code,
    reason = "fork, and system calls whose arguments no wrapper would let through"
)]

mod call;
mod files;
mod kernel;
mod mounts;
mod network;
mod processes;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::arguments::Refuse;
use crate::error::Error;
use crate::say;

use call::Call;

/// One call that is refused.
struct Case {
    name: &'static str,
    /// Prepares all that it takes, in the process that makes the call.
    prepare: fn(&Places) -> io::Result<Call>,
}

/// Directories of the machine.
struct Places {
    /// On a file system of the machine's own, empty, everybody may write.
    local: PathBuf,
    /// On a share, empty.
    shared: PathBuf,
}

/// Makes the calls of the wanted cases, or of all, and prints for each `name process number errno`.
pub(crate) fn run(job: &Refuse) -> Result<(), Error> {
    let cases = cases(&job.cases)?;
    let mut failed = 0;
    for case in cases {
        let place = |base: &PathBuf| {
            let place = base.join(case.name);
            std::fs::create_dir(&place).map_err(|source| Error::File {
                act: "make the directory",
                path: place.clone(),
                source,
            })?;
            std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
            Ok::<_, Error>(place)
        };
        let places = Places {
            local: place(&job.local)?,
            shared: place(&job.shared)?,
        };
        match refused(case, &places) {
            Ok((process, number, errno)) => say(&format!("{} {process} {number} {errno}", case.name))?,
            Err(error) => {
                failed += 1;
                eprintln!("exercise: {}: {error}", case.name);
            }
        }
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Error::NotRefused(failed))
    }
}

fn cases(wanted: &[String]) -> Result<Vec<&'static Case>, Error> {
    let all = || {
        [
            files::CASES,
            mounts::CASES,
            kernel::CASES,
            network::CASES,
            processes::CASES,
        ]
        .concat()
    };
    if wanted.is_empty() {
        return Ok(all());
    }
    let named = |name: &String| {
        let case = all().into_iter().find(|case| case.name == name);
        case.ok_or_else(|| Error::Usage(format!("there is no case {name:?}")))
    };
    wanted.iter().map(named).collect()
}

/// Process, number of the call, errno.
fn refused(case: &Case, places: &Places) -> io::Result<(u32, i64, i32)> {
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this program has one thread, so the child finds no lock held by another.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reading);
            let said = match (case.prepare)(places) {
                Ok(call) => call.make().map(|errno| (call.number(), errno)),
                Err(error) => Err(io::Error::other(format!("cannot prepare: {error}"))),
            };
            let line = match said {
                Ok((number, errno)) => format!("{} {number} {errno}", std::process::id()),
                Err(error) => error.to_string(),
            };
            let mut writing = std::fs::File::from(writing);
            let status = i32::from(writing.write_all(line.as_bytes()).is_err());
            // SAFETY: ends this process without what the parent has yet to write.
            unsafe { libc::_exit(status) }
        }
        _ => {
            drop(writing);
            let mut line = String::new();
            std::fs::File::from(reading).read_to_string(&mut line)?;
            rustix::process::wait(rustix::process::WaitOptions::empty())?;
            parsed(&line).ok_or_else(|| io::Error::other(line))
        }
    }
}

fn parsed(line: &str) -> Option<(u32, i64, i32)> {
    let mut words = line.split(' ');
    let parsed = (
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
        words.next()?.parse().ok()?,
    );
    words.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_cases_have_one_name() {
        let mut names: Vec<_> = cases(&[]).unwrap().iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_case_is_bad_usage() {
        assert!(matches!(cases(&["nonsense".to_owned()]), Err(Error::Usage(_))));
    }

    #[test]
    fn a_refused_call_is_told_with_its_number_and_errno() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places {
            local: directory.path().to_owned(),
            shared: directory.path().to_owned(),
        };
        let case = cases(&["read-closed".to_owned()]).unwrap()[0];
        let (_, number, errno) = refused(case, &places).unwrap();
        assert_eq!((number, errno), (libc::SYS_read, libc::EBADF));
    }
}
