//! What innkeeper says of its own, beside the report.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a sentence on standard error. That nobody reads it, or there is no room, must cost no command its status.
pub(super) fn say(sentence: impl Display) {
    let line = format!("innkeeper: {sentence}\n");
    let _unread = io::stderr().write_all(line.as_bytes());
}
