//! Writes whole lines without delaying requests for long: a line that cannot be written is dropped and counted.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::write;

/// How long a reader that is slow is waited for, until it is once found to have stopped reading: 0.1 s.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const NONE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output {
    file: OwnedFd,
    /// The daemon's own log goes elsewhere, and can say that this one does not work.
    complains: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lines lost since the last one that was written, and in all.
    lost: u64,
    lost_in_all: u64,
    /// The last one was written in part.
    torn: bool,
    /// Nobody reads.
    stalled: bool,
}

impl Output {
    pub(super) fn to_file(file: OwnedFd) -> Self {
        Self::new(file, true)
    }

    pub(super) fn to_standard_error(file: OwnedFd) -> Self {
        Self::new(file, false)
    }

    fn new(file: OwnedFd, complains: bool) -> Self {
        let state = Mutex::default();
        Self { file, complains, state }
    }

    /// Writes `line` and its end. Where lines are missing before it, `gap` says so, given their number.
    pub(super) fn put(&self, line: &str, gap: impl FnOnce(u64) -> String) {
        let mut state = self.lock();
        let mut written = Ok(());
        if state.lost > 0 {
            let gap = gap(state.lost);
            written = self.write(&mut state, &gap);
            if written.is_ok() {
                state.lost = 0;
            }
        }
        let Err(error) = written.and_then(|()| self.write(&mut state, line)) else {
            return;
        };
        state.lost += 1;
        state.lost_in_all += 1;
        if state.lost_in_all == 1 && self.complains {
            tracing::warn!("cannot write the error log: {error}; lines are dropped and counted");
        }
    }

    /// Lines lost in all.
    pub(super) fn lost_in_all(&self) -> u64 {
        self.lock().lost_in_all
    }

    fn write(&self, state: &mut State, line: &str) -> io::Result<()> {
        self.wait(state)?;
        // A piece of a line that was lost must not become the start of this one.
        let start = if state.torn { "\n" } else { "" };
        let bytes = [start, line, "\n"].concat();
        let mut done = 0;
        while done < bytes.len() {
            match write(&self.file, &bytes.as_bytes()[done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    state.torn = if done == 0 { state.torn } else { done > start.len() };
                    return Err(error.into());
                }
            }
        }
        state.torn = false;
        Ok(())
    }

    /// Until a pipe or a terminal takes a line.
    fn wait(&self, state: &mut State) -> io::Result<()> {
        let patience = if state.stalled { NONE } else { PATIENCE };
        let mut wanted = [PollFd::new(&self.file, PollFlags::OUT)];
        state.stalled = match poll(&mut wanted, Some(&patience)) {
            Ok(0) => true,
            // What else there may be, the write meets.
            Ok(_) | Err(_) => false,
        };
        match state.stalled {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };

    use super::*;

    fn gap(lost: u64) -> String {
        format!("lost {lost}")
    }

    #[test]
    fn a_pipe_that_nobody_reads_loses_lines_and_the_gap_is_told() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::to_standard_error(writer.into());
        let line = "x".repeat(999);
        while output.lost_in_all() < 3 {
            output.put(&line, gap);
        }
        // A pipe of 64 KiB, of which the first page is read.
        let mut page = vec![0; 16 << 10];
        reader.read_exact(&mut page).unwrap();
        output.put("last", gap);
        assert_eq!(output.lost_in_all(), 3);
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let lines = [page, rest.into_bytes()].concat();
        let lines = String::from_utf8(lines).unwrap();
        let (written, tail) = lines.split_once("lost 3\n").unwrap();
        assert!(written.lines().all(|written| written == line));
        assert_eq!(tail, "last\n");
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_alone() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Output::to_standard_error(writer.into());
        output.put("line", gap);
        assert_eq!(output.lost_in_all(), 1);
    }

    #[test]
    fn a_line_that_a_full_disk_tore_stays_on_a_line_of_its_own() {
        let mount = || {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "size", "16k")?;
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        let disk = match mount() {
            Ok(disk) => disk,
            Err(error) => return eprintln!("skipped: cannot mount: {error}"),
        };
        let place = |name: &str| format!("/proc/self/fd/{}/{name}", disk.as_raw_fd());
        let mut filler = File::create(place("filler")).unwrap();
        filler.write_all(&[0; 8 << 10]).unwrap();
        let file = File::options().append(true).create(true).open(place("log")).unwrap();
        let output = Output::to_file(file.into());
        // 8 KiB hold eight lines and a part of the ninth.
        for _ in 0..12 {
            output.put(&"x".repeat(999), gap);
        }
        let lost = output.lost_in_all();
        assert!(lost > 0, "the disk is full");
        filler.set_len(0).unwrap();
        output.put("last", gap);
        assert_eq!(output.lost_in_all(), lost);
        let log = std::fs::read_to_string(place("log")).unwrap();
        let lines: Vec<_> = log.lines().collect();
        let (whole, rest) = lines.split_at(12 - lost as usize);
        assert!(whole.iter().all(|line| line.len() == 999));
        assert!(rest[0].len() < 999, "the torn one");
        assert_eq!(rest[1..], [&gap(lost), "last"]);
    }
}
