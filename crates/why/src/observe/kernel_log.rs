//! The kernel's log during a call (`/dev/kmsg`), where it is readable: for root, or for anybody who may open the file
//! if `kernel.dmesg_restrict` is 0.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use serde::{Deserialize, Serialize};

/// Longer than any record (`PRINTK_MESSAGE_MAX` of Linux).
const RECORD: usize = 8192;
/// Lines that are remembered while calls run.
const RECENT: usize = 256;
/// Lines that are kept of one call, the last ones.
const KEPT: usize = 8;

/// A line of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the system was booted, by the log's own clock.
    pub time: u64,
    /// What it says.
    pub text: String,
}

impl Line {
    /// Whether it names this thread, by a number that is nothing else, or by its program's name in front of the number's
    /// place.
    #[must_use]
    pub fn names(&self, thread: i32, program: Option<&str>) -> bool {
        let number = thread.to_string();
        let mut words = self
            .text
            .split(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '_' | '-' | '.'));
        let by_name = || {
            let name = program.filter(|name| !name.is_empty());
            name.is_some_and(|name| {
                self.text.contains(&format!("comm=\"{name}\"")) || self.text.starts_with(&format!("{name}["))
            })
        };
        words.any(|word| word == number) || by_name()
    }
}

/// The log from now on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    recent: VecDeque<Line>,
    /// Number of the first of those.
    first: u64,
    /// For each thread in a call the number of the first line that can be about it.
    calls: BTreeMap<i32, u64>,
}

impl KernelLog {
    /// Opens it at its end; none if it may not be read.
    #[must_use]
    pub fn open() -> Option<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg");
        let mut file = file.ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self::of(file))
    }

    /// Reads from this file, which gives whole lines, and says that it would have to wait where there are no more.
    fn of(file: File) -> Self {
        Self {
            file,
            recent: VecDeque::new(),
            first: 0,
            calls: BTreeMap::new(),
        }
    }

    /// A thread is about to enter a call.
    pub(crate) fn entered(&mut self, thread: i32) {
        self.drain();
        self.calls.insert(thread, self.first + self.recent.len() as u64);
    }

    /// A thread is no more.
    pub(crate) fn ended(&mut self, thread: i32) {
        self.calls.remove(&thread);
    }

    /// What was logged since the thread entered its call.
    pub(crate) fn since(&mut self, thread: i32) -> Vec<Line> {
        self.drain();
        let Some(from) = self.calls.remove(&thread) else {
            return Vec::new();
        };
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let lines = self.recent.iter().skip(skipped);
        let count = lines.clone().count();
        lines.skip(count.saturating_sub(KEPT)).cloned().collect()
    }

    fn drain(&mut self) {
        let mut bytes = [0; RECORD];
        loop {
            match self.file.read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => self.add(&String::from_utf8_lossy(&bytes[..length])),
                // Records were overwritten before they were read; the next ones are there.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Takes records as of `Documentation/ABI/testing/dev-kmsg` of Linux: `priority,number,microseconds,flags;text`, then
    /// lines with a space in front, which say for programs what the text is about.
    fn add(&mut self, records: &str) {
        let line = |record: &str| {
            let (head, text) = record.split_once(';')?;
            let mut fields = head.split(',');
            let priority: u32 = fields.next()?.parse().ok()?;
            let time = fields.nth(1)?.parse().ok()?;
            // What programs wrote there has a facility of its own.
            (priority >> 3 == 0).then(|| Line {
                time,
                text: text.to_owned(),
            })
        };
        for line in records.lines().filter_map(line) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
                self.first += 1;
            }
            self.recent.push_back(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn log() -> (UnixDatagram, KernelLog) {
        let (writer, reader) = UnixDatagram::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        (writer, KernelLog::of(File::from(OwnedFd::from(reader))))
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_call_has_the_lines_between_its_entry_and_its_end() {
        let (writer, mut log) = log();
        let write = |record: &str| writer.send(record.as_bytes()).unwrap();
        write("4,1,100,-;before\n");
        log.entered(7);
        write("4,2,200,-;of 7\n SUBSYSTEM=pci\n DEVICE=x\n");
        log.entered(8);
        write("6,3,300,-;of both\n");
        assert_eq!(texts(&log.since(7)), ["of 7", "of both"]);
        assert_eq!(log.since(8)[0].time, 300);
        assert_eq!(log.since(8), [], "it left its call");
        assert_eq!(log.since(9), [], "it was never seen to enter one");
    }

    #[test]
    fn what_programs_write_is_not_the_kernels() {
        let (writer, mut log) = log();
        log.entered(7);
        writer.send(b"12,1,100,-;systemd says\n").unwrap();
        writer.send(b"nonsense\n").unwrap();
        assert_eq!(log.since(7), []);
    }

    #[test]
    fn a_flood_keeps_its_end() {
        let (writer, mut log) = log();
        log.entered(7);
        for number in 0..RECENT + 10 {
            writer
                .send(format!("4,{number},0,-;line {number}\n").as_bytes())
                .unwrap();
            log.drain();
        }
        let kept = log.since(7);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[KEPT - 1].text, format!("line {}", RECENT + 9));
    }

    #[test]
    fn a_file_that_ends_is_read_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"4,1,100,-;line\n").unwrap();
        file.rewind().unwrap();
        let mut log = KernelLog::of(file);
        log.calls.insert(7, 0);
        assert_eq!(texts(&log.since(7)), ["line"]);
    }

    #[test]
    fn a_line_names_a_thread_by_its_number_or_its_program() {
        let line = |text: &str| Line {
            time: 0,
            text: text.to_owned(),
        };
        let vm = line("__vm_enough_memory: pid: 812, comm: app, not enough memory for the allocation");
        assert!(vm.names(812, None));
        assert!(!vm.names(81, None));
        let audit = line("audit: type=1400 apparmor=\"DENIED\" operation=\"open\" comm=\"app\"");
        assert!(audit.names(5, Some("app")));
        assert!(!audit.names(5, Some("ap")));
        assert!(line("app[12]: segfault at 0").names(5, Some("app")));
    }
}
