//! The limit of open files: a share without file handles keeps one descriptor for each file the guest remembers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::Error;

/// What is taken when the hard limit is higher; the kernel's own `nr_open` stands near it.
const ENOUGH: u64 = 1_000_000;

/// Raises the soft limit to `wanted`, or as far as is useful without privilege; 0 leaves it alone.
pub(crate) fn raise_open_files(wanted: Option<u64>) -> Result<(), Error> {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let limit = match wanted {
        Some(0) => return Ok(()),
        Some(wanted) => Rlimit {
            current: Some(wanted),
            maximum: Some(hard.max(wanted)),
        },
        None => Rlimit {
            current: Some(hard.min(ENOUGH).max(now.current.unwrap_or(ENOUGH))),
            maximum: now.maximum,
        },
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => Ok(()),
        Err(source) => Err(Error::OpenFileLimit {
            wanted: limit.current.unwrap_or(ENOUGH),
            source: source.into(),
        }),
    }
}
