//! Progress messages during a measurement.

use std::io::{IsTerminal, Write as _};

use crate::error::Error;

/// Rewrites the line of progress on a terminal.
pub(crate) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// Prints what is known already, so that a reader has something to read.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    printed.map_err(Error::system("print the table"))
}
