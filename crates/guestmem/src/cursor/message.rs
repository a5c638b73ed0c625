//! Messages: one system call moves a header in our own memory and a body in guest memory, for files that keep
//! boundaries (taps, packet sockets).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Cursor, MAX_PIECES, Reader, Writer};

impl Reader<'_> {
    /// Writes `head` and all that is left as one message to `fd`, by the kernel straight from guest memory. Returns the number of bytes
    /// of the body that the kernel took; then everything is read.
    ///
    /// Refused, with nothing written, if the body cannot be reached (EFAULT) or has too many pieces for one call
    /// (EMSGSIZE).
    pub fn write_message(&mut self, fd: BorrowedFd<'_>, head: &[u8]) -> io::Result<usize> {
        let fd = fd.as_raw_fd();
        self.0.message(head.as_ptr().cast_mut(), head.len(), |vectors| {
            // SAFETY: the first vector is `head`, which the kernel only reads. The others are ranges out of the `Pieces`
            // that this cursor borrows: checked and mapped. The kernel reads them, and does not mind that a guest writes
            // there.
            unsafe { libc::writev(fd, vectors.as_ptr(), vectors.len() as libc::c_int) }
        })
    }
}

impl Writer<'_> {
    /// Reads one message of `fd`: its first bytes into `head`, the rest by the kernel straight into guest memory. Returns the number
    /// of bytes of the body, by which this writer has moved. If they are more than there was space, the rest is lost: some files
    /// tell so. A message that is shorter than `head` is an error (`InvalidData`).
    ///
    /// Refused, with nothing read, if the space cannot be reached (EFAULT) or has too many pieces for one call
    /// (EMSGSIZE).
    pub fn read_message(&mut self, fd: BorrowedFd<'_>, head: &mut [u8]) -> io::Result<usize> {
        let fd = fd.as_raw_fd();
        self.0.message(head.as_mut_ptr(), head.len(), |vectors| {
            // SAFETY: the first vector is `head`, borrowed for writing. The others are ranges out of the `Pieces` that
            // this cursor borrows: checked and mapped. No reference points there, so the kernel may write.
            unsafe { libc::readv(fd, vectors.as_ptr(), vectors.len() as libc::c_int) }
        })
    }
}

impl Cursor<'_> {
    fn message(
        &mut self,
        head: *mut u8,
        head_length: usize,
        call: impl Fn(&[libc::iovec]) -> libc::ssize_t,
    ) -> io::Result<usize> {
        let mut space = [const { MaybeUninit::uninit() }; MAX_PIECES];
        let (vectors, offered) = self.vectors(self.remaining, &mut space);
        if offered < self.remaining {
            let whole = vectors.len() < MAX_PIECES;
            return Err(errno(if whole { libc::EFAULT } else { libc::EMSGSIZE }));
        }
        if vectors.len() == MAX_PIECES {
            return Err(errno(libc::EMSGSIZE));
        }
        let mut all = [const {
            libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }
        }; MAX_PIECES];
        let count = vectors.len() + 1;
        all[0] = libc::iovec {
            iov_base: head.cast(),
            iov_len: head_length,
        };
        all[1..count].copy_from_slice(vectors);
        let Ok(moved) = usize::try_from(call(&all[..count])) else {
            return Err(io::Error::last_os_error());
        };
        let body = moved
            .checked_sub(head_length)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut ahead = self.clone();
        ahead.advance(body.min(offered));
        self.check_lost(&ahead)?;
        *self = ahead;
        Ok(body)
    }
}

fn errno(number: libc::c_int) -> io::Error {
    io::Error::from_raw_os_error(number)
}
