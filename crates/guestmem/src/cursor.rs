//! Cursors over scattered pieces: [`Reader`] reads bytes from guest memory, [`Writer`] writes them.
#![expect(
    unsafe_code,
    reason = "copies and vectored I/O on ranges that `Pieces` has checked and keeps mapped"
)]

mod message;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pieces::{Kind, Piece};
use crate::sigbus::is_any_memory_lost;
use crate::{CursorError, Pieces, RwFlags, copy};

/// The kernel takes at most this many pieces a call (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

/// Takes bytes out of the readable part of a chain, from front to back.
///
/// The guest may change bytes at any time, and each byte is read once: what was checked is what is used.
#[derive(Debug)]
pub struct Reader<'m>(Cursor<'m>);

/// Puts bytes into the writable part of a chain, from front to back.
#[derive(Debug)]
pub struct Writer<'m>(Cursor<'m>);

impl<'m> Reader<'m> {
    /// Reads the run of `pieces` from its start.
    #[inline]
    pub fn new(pieces: &'m Pieces) -> Reader<'m> {
        Reader(Cursor::new(pieces))
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Bytes read so far, skipped ones and split off ones included.
    #[inline]
    pub fn consumed(&self) -> usize {
        self.0.passed
    }

    /// Fills `into`, or takes nothing.
    #[inline]
    pub fn read_exact(&mut self, into: &mut [u8]) -> Result<(), CursorError> {
        self.0.check(into.len())?;
        let mut ahead = self.0.clone();
        let mut rest = into;
        while !rest.is_empty() {
            let piece = ahead.take(rest.len());
            let (now, later) = rest.split_at_mut(piece.length);
            match piece.kind {
                // SAFETY: `take` gives a range out of the `Pieces` that this cursor borrows: checked and mapped.
                Kind::Memory => unsafe { copy::load(piece.start, now) },
                Kind::Window => copy::load_by_kernel(piece.start, now)?,
                Kind::Nowhere => return Err(CursorError::Fault),
            }
            rest = later;
        }
        self.0.check_lost(&ahead)?;
        self.0 = ahead;
        Ok(())
    }

    /// Copies an object of wire format out.
    #[inline]
    pub fn read_object<T: FromBytes + IntoBytes>(&mut self) -> Result<T, CursorError> {
        let mut object = T::new_zeroed();
        self.read_exact(object.as_mut_bytes())?;
        Ok(object)
    }

    /// Copies the next `length` bytes into memory of our own.
    pub fn read_to_vec(&mut self, length: usize) -> Result<Vec<u8>, CursorError> {
        self.0.check(length)?; // in front of the allocation, which else could be as large as a guest says
        let mut bytes = vec![0; length];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes over `length` bytes.
    pub fn skip(&mut self, length: usize) -> Result<(), CursorError> {
        self.0.check(length)?;
        self.0.advance(length);
        Ok(())
    }

    /// Cuts the first `length` bytes off into a reader of their own; this one goes on behind them.
    pub fn split_at(&mut self, length: usize) -> Result<Reader<'m>, CursorError> {
        self.0.split_at(length).map(Reader)
    }

    /// Writes up to `length` of the next bytes to `fd` at `offset`, by the kernel straight from guest memory. Gives the
    /// number of bytes written, by which this reader has moved; less than asked for only if the kernel wrote less, or could not reach
    /// the rest (EFAULT if that is all).
    pub fn write_to(&mut self, fd: BorrowedFd<'_>, offset: u64, length: usize, flags: RwFlags) -> io::Result<usize> {
        let (fd, flags) = (fd.as_raw_fd(), flags.bits() as libc::c_int);
        self.0.transfer(offset, length, |vectors, offset| {
            // SAFETY: the vectors are ranges out of the `Pieces` that this cursor borrows: checked and mapped. The
            // kernel reads them, and does not mind that a guest writes there.
            unsafe { libc::pwritev2(fd, vectors.as_ptr(), vectors.len() as libc::c_int, offset, flags) }
        })
    }

    /// Sends up to `length` of the next bytes on `socket` with one `sendmsg(2)`, by the kernel straight from guest memory. Never
    /// waits, and never raises SIGPIPE. Gives the number of bytes sent, by which this reader has moved: fewer than asked for only if
    /// the socket took fewer, or the rest is more than 1024 pieces away. Bytes that cannot be reached are EFAULT, with nothing
    /// sent.
    pub fn send_to(&mut self, socket: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        self.0.exchange(length, |message| {
            // SAFETY: the vectors are ranges out of the `Pieces` that this cursor borrows: checked and mapped. The
            // kernel reads them, and does not mind that a guest writes there.
            unsafe { libc::sendmsg(socket.as_raw_fd(), message, flags) }
        })
    }
}

impl<'m> Writer<'m> {
    /// Writes the run of `pieces` from its start.
    #[inline]
    pub fn new(pieces: &'m Pieces) -> Writer<'m> {
        Writer(Cursor::new(pieces))
    }

    /// Bytes of space left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.0.remaining
    }

    /// Bytes written so far, split off ones included.
    #[inline]
    pub fn written(&self) -> usize {
        self.0.passed
    }

    /// Writes all of `from`, or does not move.
    #[inline]
    pub fn write_all(&mut self, from: &[u8]) -> Result<(), CursorError> {
        self.0.check(from.len())?;
        let mut ahead = self.0.clone();
        let mut rest = from;
        while !rest.is_empty() {
            let piece = ahead.take(rest.len());
            let (now, later) = rest.split_at(piece.length);
            match piece.kind {
                // SAFETY: `take` gives a range out of the `Pieces` that this cursor borrows: checked and mapped.
                Kind::Memory => unsafe { copy::store(piece.start, now) },
                // SAFETY: as above; a window's range is mapped for as long, shared, and no reference points there.
                Kind::Window => unsafe { copy::store_by_kernel(piece.start, now) }?,
                Kind::Nowhere => return Err(CursorError::Fault),
            }
            rest = later;
        }
        self.0.check_lost(&ahead)?;
        self.0 = ahead;
        Ok(())
    }

    /// Copies an object of wire format in.
    #[inline]
    pub fn write_object<T: IntoBytes + Immutable + ?Sized>(&mut self, object: &T) -> Result<(), CursorError> {
        self.write_all(object.as_bytes())
    }

    /// Cuts the first `length` bytes off into a writer of their own, so that a header can be written last; this one
    /// goes on behind them.
    pub fn split_at(&mut self, length: usize) -> Result<Writer<'m>, CursorError> {
        self.0.split_at(length).map(Writer)
    }

    /// Reads up to `length` bytes of `fd` at `offset`, by the kernel straight into guest memory. Gives the number of
    /// bytes read, by which this writer has moved; less than asked for only if the kernel read less, space is out, or the rest of
    /// it cannot be reached (EFAULT if that is all).
    pub fn read_from(&mut self, fd: BorrowedFd<'_>, offset: u64, length: usize, flags: RwFlags) -> io::Result<usize> {
        let (fd, flags) = (fd.as_raw_fd(), flags.bits() as libc::c_int);
        self.0.transfer(offset, length, |vectors, offset| {
            // SAFETY: the vectors are ranges out of the `Pieces` that this cursor borrows: checked and mapped. No
            // reference points there, so the kernel may write.
            unsafe { libc::preadv2(fd, vectors.as_ptr(), vectors.len() as libc::c_int, offset, flags) }
        })
    }

    /// Receives up to `length` bytes from `socket` with one `recvmsg(2)`, by the kernel straight into guest memory. Never waits. Gives
    /// the number of bytes received, by which this writer has moved, 0 at the end of the stream. Bytes that cannot be reached are
    /// EFAULT, with nothing received.
    pub fn receive_from(&mut self, socket: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
        self.0.exchange(length, |message| {
            // SAFETY: the vectors are ranges out of the `Pieces` that this cursor borrows: checked and mapped. No
            // reference points there, so the kernel may write.
            unsafe { libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_DONTWAIT) }
        })
    }
}

/// A position in a list of pieces, and how far it may go.
#[derive(Debug, Clone)]
struct Cursor<'m> {
    /// Pieces not passed yet; together they hold at least `offset + remaining` bytes.
    pieces: &'m [Piece],
    /// Bytes passed in the first of them; less than its length.
    offset: usize,
    remaining: usize,
    passed: usize,
}

impl<'m> Cursor<'m> {
    #[inline]
    fn new(pieces: &'m Pieces) -> Cursor<'m> {
        Cursor {
            pieces: pieces.list(),
            offset: 0,
            remaining: pieces.total(),
            passed: 0,
        }
    }

    #[inline]
    fn check(&self, wanted: usize) -> Result<(), CursorError> {
        if wanted <= self.remaining {
            Ok(())
        } else {
            Err(CursorError::Short {
                wanted,
                left: self.remaining,
            })
        }
    }

    /// Whether what lies between here and `ahead` is as the guest has it, after it was copied: not if it is in a region that has
    /// lost memory.
    #[inline]
    fn check_lost(&self, ahead: &Self) -> Result<(), CursorError> {
        if is_any_memory_lost() && self.is_lost_before(ahead) {
            return Err(CursorError::Fault);
        }
        Ok(())
    }

    #[cold]
    fn is_lost_before(&self, ahead: &Self) -> bool {
        let mut passing = self.clone();
        let mut left = ahead.passed - self.passed;
        while left > 0 {
            let piece = passing.take(left);
            if piece.is_lost() {
                return true;
            }
            left -= piece.length;
        }
        false
    }

    /// The next piece, of at most `limit` bytes; passes it. Empty at the end.
    #[inline]
    fn take(&mut self, limit: usize) -> Piece {
        let limit = limit.min(self.remaining);
        let Some((first, rest)) = self.pieces.split_first() else {
            return Piece {
                start: std::ptr::null_mut(),
                length: 0,
                kind: Kind::Nowhere,
            };
        };
        let left = first.length - self.offset;
        let piece = Piece {
            start: first.start.wrapping_add(self.offset),
            length: left.min(limit),
            kind: first.kind,
        };
        if piece.length == left {
            (self.pieces, self.offset) = (rest, 0);
        } else {
            self.offset += piece.length;
        }
        self.remaining -= piece.length;
        self.passed += piece.length;
        piece
    }

    fn advance(&mut self, mut length: usize) {
        while length > 0 && self.remaining > 0 {
            length -= self.take(length).length;
        }
    }

    fn split_at(&mut self, length: usize) -> Result<Cursor<'m>, CursorError> {
        self.check(length)?;
        let first = Cursor {
            remaining: length,
            passed: 0,
            ..self.clone()
        };
        self.advance(length);
        Ok(first)
    }

    /// Hands up to `length` bytes to `call`, at most [`MAX_PIECES`] pieces at a time, until it moves less than it was
    /// given. An error after the first bytes ends the transfer, and shows up in the next one.
    fn transfer(
        &mut self,
        offset: u64,
        length: usize,
        call: impl Fn(&[libc::iovec], libc::off_t) -> libc::ssize_t,
    ) -> io::Result<usize> {
        let length = length.min(self.remaining);
        let mut done = 0;
        loop {
            let at = offset
                .checked_add(done as u64)
                .and_then(|at| libc::off_t::try_from(at).ok());
            let at = at.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            let mut space = [const { MaybeUninit::uninit() }; MAX_PIECES];
            let (vectors, offered) = self.vectors(length - done, &mut space);
            if offered == 0 && done < length {
                let fault = io::Error::from_raw_os_error(libc::EFAULT);
                return if done > 0 { Ok(done) } else { Err(fault) };
            }
            let Ok(moved) = usize::try_from(call(vectors, at)) else {
                let error = io::Error::last_os_error();
                return if done > 0 { Ok(done) } else { Err(error) };
            };
            // The kernel never claims more than it was offered; believing it would break this cursor's invariant.
            let mut ahead = self.clone();
            ahead.advance(moved.min(offered));
            // Another thread's fault may have put zeros under the kernel meanwhile.
            if let Err(fault) = self.check_lost(&ahead) {
                return if done > 0 { Ok(done) } else { Err(fault.into()) };
            }
            *self = ahead;
            done += moved.min(offered);
            if moved < offered || done == length {
                return Ok(done);
            }
        }
    }

    /// Hands up to `length` bytes to `call` in one message of at most [`MAX_PIECES`] pieces.
    fn exchange(&mut self, length: usize, call: impl Fn(&mut libc::msghdr) -> libc::ssize_t) -> io::Result<usize> {
        let length = length.min(self.remaining);
        let mut space = [const { MaybeUninit::uninit() }; MAX_PIECES];
        let (vectors, offered) = self.vectors(length, &mut space);
        if offered < length && vectors.len() < MAX_PIECES {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        // SAFETY: all zeros is a message without address, data and control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_ptr().cast_mut();
        message.msg_iovlen = vectors.len() as _;
        let Ok(moved) = usize::try_from(call(&mut message)) else {
            return Err(io::Error::last_os_error());
        };
        // As in `transfer`.
        let mut ahead = self.clone();
        ahead.advance(moved.min(offered));
        self.check_lost(&ahead)?;
        *self = ahead;
        Ok(moved.min(offered))
    }

    /// The next `length` bytes in the kernel's terms, cut at what `space` holds and at what cannot be reached, and how many bytes
    /// these are.
    fn vectors<'s>(
        &self,
        length: usize,
        space: &'s mut [MaybeUninit<libc::iovec>; MAX_PIECES],
    ) -> (&'s [libc::iovec], usize) {
        let mut ahead = self.clone();
        let mut count = 0;
        let mut offered = 0;
        for slot in space.iter_mut() {
            let piece = ahead.take(length - offered);
            if piece.length == 0 || piece.kind == Kind::Nowhere || piece.is_lost() {
                break;
            }
            slot.write(libc::iovec {
                iov_base: piece.start.cast(),
                iov_len: piece.length,
            });
            count += 1;
            offered += piece.length;
        }
        // SAFETY: the loop has written the first `count` slots, and `space` stays borrowed as long as the slice.
        (
            unsafe { std::slice::from_raw_parts(space.as_ptr().cast(), count) },
            offered,
        )
    }
}
