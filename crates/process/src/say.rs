//! Messages of innkeeper to its user.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a sentence on standard error. That nobody reads it, or there is no room, must cost no command its end or its status.
pub fn say(sentence: impl Display) {
    let line = format!("innkeeper: {sentence}\n");
    let _unread = io::stderr().write_all(line.as_bytes());
}

/// Prints what a user may want to paste on standard output, once a daemon or a mount is ready for it.
pub fn announce(text: &str) {
    let mut stdout = io::stdout();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::warn!("cannot write to standard output: {error}");
    }
}
