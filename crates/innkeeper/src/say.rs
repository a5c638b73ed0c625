//! What innkeeper says to whoever started it.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a sentence on standard error. That nobody reads it, or there is no room, must cost no job its end, nor a command its status.
pub(crate) fn say(sentence: impl Display) {
    let line = format!("innkeeper: {sentence}\n");
    let _unread = io::stderr().write_all(line.as_bytes());
}
