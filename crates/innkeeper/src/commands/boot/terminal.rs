//! The user's terminal while the guest uses it.

use std::io;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Standard input in raw mode: every key goes to the guest. Back in its old mode when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Switches standard input, a terminal, to raw mode.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Fails only if the terminal is gone.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Whether somebody sits in front of both standard input and output.
pub(crate) fn interactive() -> bool {
    isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout())
}

/// Rows and columns of the terminal on standard input.
pub(crate) fn size() -> Option<(u16, u16)> {
    tcgetwinsize(rustix::stdio::stdin())
        .ok()
        .map(|size| (size.ws_row, size.ws_col))
}

/// Finds Ctrl-a x among the keys for the guest; Ctrl-a Ctrl-a is one Ctrl-a, as in QEMU and screen.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    begun: bool,
}

impl Escape {
    const CTRL_A: u8 = 1;

    /// Takes the escapes out of `keys`. Answers what is left for the guest, and whether the user wants to leave.
    pub(crate) fn filter(&mut self, keys: &[u8]) -> (Vec<u8>, bool) {
        let mut rest = Vec::with_capacity(keys.len());
        for &key in keys {
            match (std::mem::take(&mut self.begun), key) {
                (true, b'x' | b'X') => return (rest, true),
                (true, Self::CTRL_A) => rest.push(key),
                (true, _) => rest.extend([Self::CTRL_A, key]),
                (false, Self::CTRL_A) => self.begun = true,
                (false, _) => rest.push(key),
            }
        }
        (rest, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_leaves_even_when_typed_slowly() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"ls\x01"), (b"ls".to_vec(), false));
        assert_eq!(escape.filter(b"xls"), (Vec::new(), true));
    }

    #[test]
    fn every_other_key_reaches_the_guest() {
        let mut escape = Escape::default();
        assert_eq!(
            escape.filter(b"\x03x\x01\x01x\x01k\x1b[A"),
            (b"\x03x\x01x\x01k\x1b[A".to_vec(), false)
        );
    }
}
