//! Reads of open files, with and without waiting for their data.

use std::io::{self, ErrorKind};

use guestmem::{RwFlags, Writer};
use rustix::fs::fstat;

use super::Passthrough;
use super::handle::{OpenFile, Opened as _, Reads};
use crate::cause::HostResult as _;
use crate::fs::{Handle, NodeId, RestOfRead, Result};
use crate::sys;

impl Passthrough {
    pub(super) fn read_file(
        &self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        len: u32,
        out: &mut Writer<'_>,
    ) -> Result<()> {
        let file = self.files.get(node, handle)?;
        Span::new(offset, len, out).read(&file, out)
    }

    /// What the page cache has. `RestOfRead`: and what it has not.
    pub(super) fn read_what_is_there(
        &self,
        node: NodeId,
        handle: Handle,
        offset: u64,
        len: u32,
        out: &mut Writer<'_>,
    ) -> Result<Option<RestOfRead>> {
        let file = self.files.get(node, handle)?;
        let mut span = Span::new(offset, len, out);
        // To be told that a read would wait is not cheap: by then Linux has made pages and sent the disk its request. Where the last
        // read waited, the next is likely to.
        let likely = matches!(file.reads(), Reads::Ask) && !(file.waited() && lies_elsewhere(&file, &span));
        if likely && span.read_cached(&file, out) {
            file.set_waited(false);
            return Ok(None);
        }
        file.set_waited(true);
        // Asked again, for the file system may just have failed to tell.
        match file.reads() {
            Reads::Here => span.read(&file, out).map(|()| None),
            Reads::Ask | Reads::Elsewhere => Ok(Some(Box::new(move |out| span.read(&file, out)))),
        }
    }
}

/// Whether some of it is known not to be in the page cache.
fn lies_elsewhere(file: &OpenFile, span: &Span) -> bool {
    let page = rustix::param::page_size() as u64;
    // Behind the end of the file there is nothing to wait for.
    let file_end = fstat(file.fd()).map_or(u64::MAX, |status| status.st_size as u64);
    let end = span.offset.saturating_add(span.len as u64).min(file_end);
    if end <= span.offset {
        return false;
    }
    let pages = end.div_ceil(page) - span.offset / page;
    // Before Linux 6.5, and of files of others, nobody knows.
    sys::pages_in_cache(file.fd(), span.offset, end - span.offset).is_ok_and(|cached| cached < pages)
}

/// Which part of a file is wanted, and how much of it is there.
struct Span {
    offset: u64,
    len: usize,
    done: usize,
}

impl Span {
    fn new(offset: u64, len: u32, out: &Writer<'_>) -> Span {
        let len = (len as usize).min(out.remaining());
        Span { offset, len, done: 0 }
    }

    /// The guest takes a short answer for the end of the file, so only the end may make it short: an error counts even behind bytes that
    /// were read. For its cache Linux then asks for each page by itself, and gets those that can be read.
    fn read(mut self, file: &OpenFile, out: &mut Writer<'_>) -> Result<()> {
        while self.done < self.len {
            match self.step(file, out, RwFlags::empty()) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                failed => drop(failed.of(|| format!("preadv2(file, {} bytes, at {})", self.len, self.offset))?),
            }
        }
        Ok(())
    }

    /// As far as it goes without waiting; whether that is all. An error is left for [`read`](Self::read) to meet again: file systems
    /// have their own ways to say that they would have to wait.
    fn read_cached(&mut self, file: &OpenFile, out: &mut Writer<'_>) -> bool {
        while self.done < self.len {
            match self.step(file, out, RwFlags::NOWAIT) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
                        file.does_not_tell();
                    }
                    return false;
                }
            }
        }
        true
    }

    fn step(&mut self, file: &OpenFile, out: &mut Writer<'_>, flags: RwFlags) -> io::Result<usize> {
        let at = self.offset.saturating_add(self.done as u64);
        let read = out.read_from(file.fd(), at, self.len - self.done, flags)?;
        self.done += read;
        Ok(read)
    }
}
