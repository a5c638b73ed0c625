//! Transfers between files and guest memory by `io_uring`.
#![expect(
    unsafe_code,
    reason = "the kernel uses buffers and descriptors until a completion arrives; this module keeps them that long"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use guestmem::Vectors;
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};

use crate::image::write_flags;

/// Transfers in flight, each with a value of the caller's.
///
/// The kernel lets the ring read and write, and nothing else: no file can be opened through it, whatever becomes of its memory.
pub struct Ring<T> {
    io: IoUring,
    /// By the number that the kernel returns.
    flights: Vec<Option<Flight<T>>>,
    free: Vec<usize>,
}

/// What the kernel uses until the transfer is complete.
struct Flight<T> {
    vectors: Vectors,
    _file: Arc<OwnedFd>,
    value: T,
}

/// A transfer that is complete.
#[derive(Debug)]
pub struct Completion<T> {
    /// The caller's value.
    pub value: T,
    /// The number of bytes moved.
    pub result: io::Result<usize>,
}

impl<T> Ring<T> {
    /// Makes a ring for `most` transfers at a time, a power of two up to 4096. An error if the kernel does not offer `io_uring`, or
    /// not to this process.
    pub fn new(most: u32) -> io::Result<Ring<T>> {
        let io: IoUring = IoUring::builder().setup_r_disabled().build(most)?;
        let mut permitted = [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
        ];
        io.submitter().register_restrictions(&mut permitted)?;
        io.submitter().register_enable_rings()?;
        let most = most as usize;
        Ok(Ring {
            io,
            flights: (0..most).map(|_| None).collect(),
            free: (0..most).collect(),
        })
    }

    /// Number of transfers in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// Whether no transfer can be added now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Adds a read of `file` at `offset` into guest memory. Gives the value back if the ring is full.
    pub fn read(&mut self, file: &Arc<OwnedFd>, offset: u64, into: Vectors, value: T) -> Result<(), T> {
        self.add(file, into, value, |fd, vectors| {
            opcode::Readv::new(fd, vectors.as_ptr(), vectors.count())
                .offset(offset)
                .build()
        })
    }

    /// Adds a write of guest memory to `file` at `offset`. If `durable`, the bytes are on stable storage when it is complete. Gives
    /// the value back if the ring is full.
    pub fn write(&mut self, file: &Arc<OwnedFd>, offset: u64, from: Vectors, durable: bool, value: T) -> Result<(), T> {
        self.add(file, from, value, |fd, vectors| {
            opcode::Writev::new(fd, vectors.as_ptr(), vectors.count())
                .offset(offset)
                .rw_flags(write_flags(durable).bits() as i32)
                .build()
        })
    }

    /// Passes what was added to the kernel.
    pub fn submit(&mut self) -> io::Result<()> {
        while !self.io.submission().is_empty() {
            retried(self.io.submit())?;
        }
        Ok(())
    }

    /// Waits until a transfer is complete. Returns at once if there is none.
    pub fn wait(&mut self) -> io::Result<()> {
        while self.in_flight() > 0 && self.io.completion().is_empty() {
            retried(self.io.submit_and_wait(1))?;
        }
        Ok(())
    }

    /// The next transfer that is complete.
    pub fn completed(&mut self) -> Option<Completion<T>> {
        let entry = self.io.completion().next()?;
        let number = entry.user_data() as usize;
        let flight = self.flights.get_mut(number)?.take()?;
        self.free.push(number);
        let result = match usize::try_from(entry.result()) {
            // Another thread's fault may have put zeros under the kernel meanwhile.
            Ok(_) if flight.vectors.is_lost() => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Ok(moved) => Ok(moved),
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
        };
        Some(Completion {
            value: flight.value,
            result,
        })
    }

    fn add(
        &mut self,
        file: &Arc<OwnedFd>,
        vectors: Vectors,
        value: T,
        entry: impl FnOnce(types::Fd, &Vectors) -> squeue::Entry,
    ) -> Result<(), T> {
        let Some(number) = self.free.pop() else {
            return Err(value);
        };
        let entry = entry(types::Fd(file.as_raw_fd()), &vectors).user_data(number as u64);
        self.flights[number] = Some(Flight {
            vectors,
            _file: Arc::clone(file),
            value,
        });
        // SAFETY: the entry's descriptor and its list of ranges, which are checked and mapped, stay in `flights` until the kernel
        // has returned the entry's number; `Drop` keeps them as well. Ranges of guest memory are no reference's.
        let pushed = unsafe { self.io.submission().push(&entry) };
        // The queue has an entry for each flight.
        if pushed.is_err() {
            self.free.push(number);
            return Err(self.flights[number].take().expect("was put there").value);
        }
        Ok(())
    }
}

impl<T> AsFd for Ring<T> {
    /// Readable while a transfer is complete.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor, and the borrow is of the ring.
        unsafe { BorrowedFd::borrow_raw(self.io.as_raw_fd()) }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            if self.wait().is_err() {
                // The kernel may still use what they have.
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            while self.completed().is_some() {}
        }
    }
}

/// Not an error if the same call may succeed next time.
fn retried(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => Err(error),
        _ => Ok(()),
    }
}
