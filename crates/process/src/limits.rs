//! The limit of open files. Each file that a guest opens costs the daemon a descriptor. Without file handles, so does
//! each file that the guest knows.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Error;

/// More than guests were seen to need.
const ENOUGH: u64 = 1_000_000;

/// Raises the limit to `wanted`, or as far as is useful and allowed: beyond the hard limit too, where the process may do that
/// (CAP_SYS_RESOURCE). 0 leaves it alone. Answers the limit that holds.
pub fn raise_open_files(wanted: Option<u64>) -> Result<u64, Error> {
    let now = getrlimit(Resource::Nofile);
    let (soft, hard) = (now.current.unwrap_or(u64::MAX), now.maximum.unwrap_or(u64::MAX));
    match wanted {
        Some(0) => Ok(soft),
        Some(wanted) => set(wanted, hard.max(wanted)),
        None => {
            let most = ENOUGH.min(most_of_the_kernel()).max(soft);
            set(most, hard.max(most)).or_else(|_| set(most.min(hard), hard))
        }
    }
}

fn set(limit: u64, hard: u64) -> Result<u64, Error> {
    let limits = Rlimit {
        current: Some(limit),
        maximum: (hard < u64::MAX).then_some(hard),
    };
    match setrlimit(Resource::Nofile, limits) {
        Ok(()) => Ok(limit),
        Err(source) => Err(Error::OpenFileLimit {
            wanted: limit,
            source: source.into(),
        }),
    }
}

/// No process gets a higher limit (proc(5), fs.nr_open).
fn most_of_the_kernel() -> u64 {
    let setting = fs::read_to_string("/proc/sys/fs/nr_open");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(ENOUGH)
}
