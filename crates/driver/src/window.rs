//! The window of a device from the VMM's side: memory into which it maps the files that the backend sends.

mod range;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use vhost_user::channel::{BackendRequest, BackendRequests};
use vhost_user::message::{SHARED_WRITABLE, SharedMapping};

pub use self::range::{AddressRange, RangeError};
use crate::Error;

/// The id of the one region that is served (VIRTIO 1.2 5.11.6.4: the DAX window is region 0).
const REGION: u8 = 0;

/// What becomes of SHMEM_MAP and SHMEM_UNMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// They are done.
    Serve,
    /// SHMEM_MAP is answered with this; SHMEM_UNMAP is done.
    RefuseMap(Errno),
    /// The same, once; then as [`Serve`](Self::Serve).
    RefuseNextMap(Errno),
    /// No answer, until that changes.
    Never,
}

/// The window of one device. A thread answers for it until it is dropped.
#[derive(Debug)]
pub struct Window {
    shared: Arc<Shared>,
    /// Our end of the channel once more, to end the thread.
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    range: AddressRange,
    /// `None`: the connection has ended.
    answers: Mutex<Option<Answers>>,
    changed: Condvar,
    mapped: AtomicU64,
    unmapped: AtomicU64,
    asked: AtomicU64,
    violations: AtomicU64,
}

impl Window {
    /// A window of `size` bytes, and the backend's end of the channel on which it is served.
    pub(crate) fn new(size: u64) -> Result<(Self, UnixStream), Error> {
        let failed = |action| move |source| Error::Channel { action, source };
        let shared = Arc::new(Shared {
            range: AddressRange::reserve(size)?,
            answers: Mutex::new(Some(Answers::Serve)),
            changed: Condvar::new(),
            mapped: AtomicU64::new(0),
            unmapped: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            violations: AtomicU64::new(0),
        });
        let (ours, theirs) = UnixStream::pair().map_err(failed("make"))?;
        let requests = BackendRequests::new(ours.try_clone().map_err(failed("share"))?);
        let answering = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("window".into())
            .spawn(move || serve(requests, &answering))
            .map_err(failed("serve"))?;
        let window = Self {
            shared,
            stream: ours,
            thread: Some(thread),
        };
        Ok((window, theirs))
    }

    /// The memory itself.
    pub fn memory(&self) -> &AddressRange {
        &self.shared.range
    }

    /// How requests are answered from now on, the one that has no answer yet included.
    pub fn answer(&self, answers: Answers) {
        self.shared.set(Some(answers));
    }

    /// SHMEM_MAP and SHMEM_UNMAP that came, answered or not.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Requests that break the rules of vhost-user: they map where something is mapped, unmap what is no whole mapping, or lie
    /// outside of the window.
    pub fn violations(&self) -> u64 {
        self.shared.violations.load(Ordering::SeqCst)
    }

    /// Mappings that were ever put in.
    pub fn mapped(&self) -> u64 {
        self.shared.mapped.load(Ordering::SeqCst)
    }

    /// Mappings that were ever taken out.
    pub fn unmapped(&self) -> u64 {
        self.shared.unmapped.load(Ordering::SeqCst)
    }

    /// Takes all mappings out unasked, as QEMU does when the device is reset.
    pub fn clear(&self) -> Result<(), RangeError> {
        let count = self.shared.range.clear()?;
        self.shared.unmapped.fetch_add(count as u64, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.shared.set(None);
        // Fails if the backend has closed its end, and then the thread has seen that as well.
        let _ends_the_thread = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the window's thread panicked");
        }
    }
}

/// A backend that breaks the protocol gets no further answer: it sees the channel closed.
fn serve(mut requests: BackendRequests, shared: &Shared) {
    while let Ok(true) = requests.serve(|request| shared.status(request)) {}
}

impl Shared {
    fn set(&self, answers: Option<Answers>) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        self.changed.notify_all();
    }

    /// Does what is asked. 0 for success, else an error number.
    fn status(&self, request: BackendRequest) -> u64 {
        if matches!(request, BackendRequest::ConfigChanged) {
            return 0;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = self
            .changed
            .wait_while(answers, |answers| *answers == Some(Answers::Never));
        let mut answers = answers.unwrap_or_else(PoisonError::into_inner);
        let now = *answers;
        if let (BackendRequest::Map(..), Some(Answers::RefuseNextMap(_))) = (&request, now) {
            *answers = Some(Answers::Serve);
        }
        drop(answers);
        let done = match (request, now) {
            (_, None | Some(Answers::Never)) => Err(Errno::PIPE),
            (BackendRequest::Map(..), Some(Answers::RefuseMap(errno) | Answers::RefuseNextMap(errno))) => Err(errno),
            (BackendRequest::ConfigChanged, _) => Ok(()),
            (BackendRequest::Map(mapping, file), _) => self.in_region(&mapping).and_then(|()| {
                let SharedMapping {
                    file_offset,
                    offset,
                    length,
                    flags,
                    ..
                } = mapping;
                let writable = flags & SHARED_WRITABLE != 0;
                self.range
                    .map(offset, length, file.as_fd(), file_offset, writable)
                    .map_err(|error| self.failed(error))?;
                self.mapped.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }),
            (BackendRequest::Unmap(mapping), _) => self.in_region(&mapping).and_then(|()| {
                self.range
                    .unmap(mapping.offset, mapping.length)
                    .map_err(|error| self.failed(error))?;
                self.unmapped.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }),
        };
        done.map_or_else(|errno| u64::from(errno.raw_os_error().unsigned_abs()), |()| 0)
    }

    /// The error number for the backend.
    fn failed(&self, error: RangeError) -> Errno {
        if !matches!(error, RangeError::Kernel { .. }) {
            self.violations.fetch_add(1, Ordering::SeqCst);
        }
        error.errno()
    }

    fn in_region(&self, mapping: &SharedMapping) -> Result<(), Errno> {
        if mapping.region == REGION {
            Ok(())
        } else {
            self.violations.fetch_add(1, Ordering::SeqCst);
            Err(Errno::NODEV)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use vhost_user::channel::{Channel, Wait};

    use super::*;

    const PAGE: u64 = 4096;
    const WAIT: Wait<'_> = Wait {
        limit: Duration::from_secs(30),
        stop: None,
    };

    fn mapping(region: u8, page: u64) -> SharedMapping {
        SharedMapping {
            region,
            padding: [0; 7],
            file_offset: 0,
            offset: page * PAGE,
            length: PAGE,
            flags: SHARED_WRITABLE,
        }
    }

    #[test]
    fn a_backend_maps_and_unmaps_and_hears_what_cannot_be() {
        let (window, stream) = Window::new(2 * PAGE).unwrap();
        let mut channel = Channel::new(stream);
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, PAGE).unwrap();
        let refused = |result, errno: Errno| {
            let expected = u64::from(errno.raw_os_error().unsigned_abs());
            matches!(result, Err(vhost_user::Error::RefusedByFrontend { status, .. }) if status == expected)
        };
        channel.map(&mapping(0, 1), file.as_fd(), WAIT).unwrap();
        window.memory().store(PAGE, b"stored").unwrap();
        let mut on_file = [0; 6];
        rustix::io::pread(&file, &mut on_file, 0).unwrap();
        assert_eq!(&on_file, b"stored");
        assert!(refused(channel.map(&mapping(0, 1), file.as_fd(), WAIT), Errno::EXIST));
        assert!(refused(channel.map(&mapping(0, 2), file.as_fd(), WAIT), Errno::INVAL));
        assert!(refused(channel.map(&mapping(1, 0), file.as_fd(), WAIT), Errno::NODEV));
        assert!(refused(channel.unmap(&mapping(0, 0), WAIT), Errno::NOENT));
        window.answer(Answers::RefuseMap(Errno::NOSPC));
        assert!(refused(channel.map(&mapping(0, 0), file.as_fd(), WAIT), Errno::NOSPC));
        channel.unmap(&mapping(0, 1), WAIT).unwrap();
        assert_eq!((window.mapped(), window.unmapped(), window.asked()), (1, 1, 7));
        assert_eq!(window.violations(), 4, "what the window refuses by itself");
    }

    #[test]
    fn what_is_refused_once_is_done_the_next_time() {
        let (window, stream) = Window::new(PAGE).unwrap();
        let mut channel = Channel::new(stream);
        let file = memfd_create("file", MemfdFlags::CLOEXEC).unwrap();
        window.answer(Answers::RefuseNextMap(Errno::NOMEM));
        // Not what it waits for.
        channel.unmap(&mapping(0, 0), WAIT).unwrap_err();
        channel.map(&mapping(0, 0), file.as_fd(), WAIT).unwrap_err();
        channel.map(&mapping(0, 0), file.as_fd(), WAIT).unwrap();
    }

    #[test]
    fn a_backend_without_an_answer_gets_it_later_or_sees_the_end() {
        let (window, stream) = Window::new(PAGE).unwrap();
        let mut channel = Channel::new(stream);
        window.answer(Answers::Never);
        let waiting = Wait {
            limit: Duration::from_millis(50),
            stop: None,
        };
        let unanswered = channel.unmap(&mapping(0, 0), waiting);
        assert!(
            matches!(unanswered, Err(vhost_user::Error::Timeout(_))),
            "{unanswered:?}"
        );
        window.answer(Answers::Serve);
        let refused = channel.unmap(&mapping(0, 0), WAIT);
        assert!(
            matches!(refused, Err(vhost_user::Error::RefusedByFrontend { .. })),
            "{refused:?}"
        );
        window.answer(Answers::Never);
        channel.unmap(&mapping(0, 0), waiting).unwrap_err();
        drop(window);
        let ended = channel.unmap(&mapping(0, 0), WAIT);
        assert!(
            !matches!(ended, Ok(()) | Err(vhost_user::Error::Timeout(_))),
            "{ended:?}"
        );
    }
}
