//! Descriptors of the front end that a lane signals: call and error.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use tracing::warn;

/// An eventfd, or the writing end of a pipe (User-Mode Linux). Both take 8 bytes for one signal.
///
/// The descriptor is set to non-blocking once. That flag belongs to the open file description, so the front end's own writes to this
/// end can fail with EAGAIN as well. This does no harm: a front end writes there only to inject an interrupt, and a full pipe or
/// counter holds one already. The alternatives are worse. With poll(2) before each write an interrupt costs two system calls, and
/// the write still blocks if another lane fills the pipe in between. RWF_NOWAIT is refused by eventfds and by pipes of older kernels.
/// An eventfd cannot be opened a second time.
#[derive(Debug)]
pub(crate) struct Event {
    descriptor: OwnedFd,
    /// A write failed and was logged. Nothing more is written.
    broken: AtomicBool,
}

impl Event {
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        takes_signals(&descriptor)?;
        never_blocking(&descriptor)?;
        Ok(Self {
            descriptor,
            broken: AtomicBool::new(false),
        })
    }

    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    /// Signals once. If the counter or pipe is full (EAGAIN), earlier signals are still unread, which is as good. Any other error, such
    /// as EPIPE if the reader is gone, is logged once and ends the use of the descriptor. Rust programs ignore SIGPIPE.
    pub(crate) fn signal(&self, queue: u16, what: &'static str) {
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes())) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(errno) => {
                self.broken.store(true, Ordering::Relaxed);
                warn!(queue, %errno, "cannot write to the {what} descriptor; it is no longer used");
            }
        }
    }
}

/// Returns EINVAL unless the file is an eventfd (which has no file type), a pipe or a socket. Some kernel files check
/// the writer's rights, and the daemon may be root where the front end is not.
fn takes_signals(descriptor: &OwnedFd) -> Result<(), Errno> {
    let mode = fstat(descriptor)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Fifo | FileType::Socket => Ok(()),
        _ if mode & 0o170_000 == 0 => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// Sets non-blocking mode, so that no file from the front end blocks a lane.
pub(crate) fn never_blocking(descriptor: &OwnedFd) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(descriptor, true)
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn read(from: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; 1 << 17];
        let length = rustix::io::read(from, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    #[test]
    fn an_eventfd_counts_signals() {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let event = Event::new(descriptor.try_clone().unwrap()).unwrap();
        event.signal(0, "call");
        event.signal(0, "call");
        assert_eq!(read(&descriptor).unwrap(), 2_u64.to_ne_bytes());
    }

    #[test]
    fn a_full_counter_is_a_signal_on_its_way() {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let full = u64::MAX - 1;
        rustix::io::write(&descriptor, &full.to_ne_bytes()).unwrap();
        let event = Event::new(descriptor.try_clone().unwrap()).unwrap();
        event.signal(0, "call");
        assert_eq!(read(&descriptor).unwrap(), full.to_ne_bytes());
        event.signal(0, "call");
        assert_eq!(read(&descriptor).unwrap(), 1_u64.to_ne_bytes());
    }

    #[test]
    fn a_pipe_takes_8_bytes_a_signal_until_it_is_full_and_again_when_it_is_read() {
        for flags in [PipeFlags::CLOEXEC, PipeFlags::CLOEXEC | PipeFlags::NONBLOCK] {
            let (reader, writer) = pipe_with(flags).unwrap();
            let event = Event::new(writer).unwrap();
            event.signal(0, "call");
            assert_eq!(read(&reader).unwrap(), 1_u64.to_ne_bytes());

            let capacity = rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
            for _ in 0..capacity / 8 + 100 {
                event.signal(0, "call");
            }
            let bytes = read(&reader).unwrap();
            assert!(bytes.len() <= capacity);
            let (signals, rest) = bytes.as_chunks::<8>();
            assert!(rest.is_empty() && signals.iter().all(|signal| *signal == 1_u64.to_ne_bytes()));

            event.signal(0, "call");
            assert_eq!(read(&reader).unwrap(), 1_u64.to_ne_bytes());
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_given_up_once() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let event = Event::new(writer).unwrap();
        event.signal(0, "call");
        assert!(!event.broken.load(Ordering::Relaxed));
        drop(reader);
        event.signal(0, "call");
        assert!(
            event.broken.load(Ordering::Relaxed),
            "nothing is written any more, or logged"
        );
        event.signal(0, "call");
    }

    #[test]
    fn what_takes_no_signals_is_refused() {
        for path in ["/dev/null", "/proc/self/oom_score_adj", "."] {
            let file = std::fs::File::open(path).unwrap();
            assert_eq!(Event::new(file.into()).err(), Some(Errno::INVAL), "{path}");
        }
    }
}
