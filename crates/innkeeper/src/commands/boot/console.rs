//! The output of the guest's serial console, searched for the lines that explain a failed boot.

use std::collections::VecDeque;

use crate::guest::places;

/// Lines kept to be shown after a failure.
const LINES: usize = 20;
/// Bytes of a line kept.
const LINE_BYTES: usize = 400;
/// How Linux announces its end (kernel/panic.c prints it since ever).
const PANIC: &str = "Kernel panic - not syncing";

/// The console so far.
#[derive(Debug, Default)]
pub(crate) struct Console {
    line: Vec<u8>,
    last: VecDeque<String>,
    /// The line with which the kernel panicked.
    pub(crate) panic: Option<String>,
    /// Why innkeeper in the guest gave up.
    pub(crate) failure: Option<String>,
}

impl Console {
    /// Takes note of more output.
    pub(crate) fn take(&mut self, output: &[u8]) {
        for &byte in output {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < LINE_BYTES => self.line.push(byte),
                _ => {}
            }
        }
    }

    /// The last lines, fit to be printed.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<_> = self.last.iter().map(|line| format!("  {line}")).collect();
        if lines.is_empty() {
            "  nothing".into()
        } else {
            lines.join("\n")
        }
    }

    fn end_line(&mut self) {
        // A guest must not steer the terminal of whoever reads an error message.
        let line: String = String::from_utf8_lossy(&self.line)
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .collect();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        if let Some(at) = line.find(PANIC) {
            self.panic.get_or_insert_with(|| line[at..].to_owned());
        }
        if let Some(reason) = line.strip_prefix(places::FAILURE) {
            self.failure.get_or_insert_with(|| reason.to_owned());
        }
        if self.last.len() == LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_however_it_arrives() {
        let mut console = Console::default();
        for part in [
            "[    0.1] Linux\r\n[    2.3] Kernel panic - not",
            " syncing: VFS: no root\r\n---[ end Kernel panic - not syncing ]\n",
        ] {
            console.take(part.as_bytes());
        }
        assert_eq!(
            console.panic.as_deref(),
            Some("Kernel panic - not syncing: VFS: no root")
        );
        assert_eq!(console.failure, None);
    }

    #[test]
    fn the_guests_init_tells_why_it_gave_up() {
        let mut console = Console::default();
        console.take(format!("\r\n{}mounting /proc: no\r\n", places::FAILURE).as_bytes());
        assert_eq!(console.failure.as_deref(), Some("mounting /proc: no"));
    }

    #[test]
    fn what_is_kept_is_bounded_and_harmless() {
        let mut console = Console::default();
        console.take(&[b'x'; 100_000]);
        console.take(b"\n");
        (0..1000).for_each(|line| console.take(format!("\x1b[2J{line}\n").as_bytes()));
        let tail = console.tail();
        assert_eq!(tail.lines().count(), LINES);
        assert!(tail.ends_with("[2J999") && !tail.contains('\x1b'));
    }
}
