//! The host's error log, as a guest finds it in the share.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags, statx};
use why::host_log::HostLog;

/// Bytes of the log's end that are read: what was logged during a command is there.
const END: u64 = 16 << 20;

/// Reads the log's end.
pub(super) fn read(path: &Path) -> Result<HostLog, String> {
    let end = end(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(HostLog::parse(&String::from_utf8_lossy(&end)))
}

fn end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    // A share may let the guest believe an old size for a while; asked so, it asks the host, and drops what it has of the file
    // if that has changed.
    let sync = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let size = statx(&file, "", sync, StatxFlags::SIZE)?.stx_size;
    file.seek(SeekFrom::Start(size.saturating_sub(END)))?;
    let mut bytes = Vec::new();
    file.take(END).read_to_end(&mut bytes)?;
    Ok(bytes)
}
