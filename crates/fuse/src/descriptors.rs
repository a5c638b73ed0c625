//! Descriptor tables of single threads.
//!
//! A FUSE connection must end with the process that serves it. If a thread waits for that FUSE file system while the
//! process is killed, a shared table would keep the connection open.

#![expect(
    unsafe_code,
    reason = "unshare(2) and close_range(2) have no safe wrapper, and the thread's copies of descriptors no owner yet"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The first descriptor that is none of the standard streams.
const STREAMS_END: RawFd = 3;

/// Gives the calling thread a table with nothing in it but the standard streams and `kept`, which it owns there; those are open, and
/// different. To be called by a thread that owns no other descriptor and will be handed none: what others open and close it no longer
/// sees.
pub fn part_with_all_but<const N: usize>(kept: [RawFd; N]) -> io::Result<[OwnedFd; N]> {
    let mut ascending = kept;
    ascending.sort_unstable();
    // SAFETY: CLONE_FILES replaces this thread's table by a copy, and touches neither memory nor the others' table.
    check(unsafe { libc::unshare(libc::CLONE_FILES) }.into())?;
    let mut first = STREAMS_END;
    for end in ascending {
        close(first, end - 1)?;
        first = first.max(end + 1);
    }
    close(first, RawFd::MAX)?;
    // SAFETY: this thread's copies of the descriptors, which nothing else in its table owns.
    Ok(kept.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Closes this thread's copies of a range, if there is something between its ends.
fn close(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the copies closed are this thread's, which uses none of them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::thread;

    use super::*;

    /// What the calling thread has open besides the standard streams.
    fn open() -> Vec<RawFd> {
        let entries = fs::read_dir("/proc/thread-self/fd").unwrap();
        let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
        let open: Vec<RawFd> = numbers.filter(|&number| number >= STREAMS_END).collect();
        // Without that of the directory itself.
        let is_open = |number: &RawFd| fs::symlink_metadata(format!("/proc/thread-self/fd/{number}")).is_ok();
        open.into_iter().filter(is_open).collect()
    }

    #[test]
    fn a_thread_keeps_what_it_names_in_any_order_and_others_keep_all() {
        let files: Vec<File> = (0..5).map(|_| File::open("/dev/null").unwrap()).collect();
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        for kept in [
            [numbers[1], numbers[3]],
            [numbers[3], numbers[1]],
            [numbers[0], numbers[1]],
        ] {
            thread::scope(|scope| {
                scope.spawn(move || {
                    let own = part_with_all_but(kept).unwrap();
                    assert_eq!(own.each_ref().map(AsRawFd::as_raw_fd), kept);
                    let mut expected = kept.to_vec();
                    expected.sort_unstable();
                    assert_eq!(open(), expected);
                });
            });
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                let [_only] = part_with_all_but([numbers[4]]).unwrap();
                assert_eq!(open(), [numbers[4]]);
            });
        });
        for file in &files {
            file.metadata().unwrap();
        }
    }
}
