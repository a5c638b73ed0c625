//! Files of `/proc` that tell of a process, in which names may have any bytes.

use std::fs;
use std::io;

/// What a file of a thread says; what is no UTF-8 in it is replaced.
pub(crate) fn read(thread: i32, file: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{thread}/{file}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
