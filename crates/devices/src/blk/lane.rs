//! The lane of one queue: requests in flight, and their completion in any order.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use backend::{Files, Interest, Lane, Queues};
use image::{Completion, Ring};
use tracing::error;
use virtqueue::{Chain, Outcome, Pending};

use super::disk::{Disk, refuse};
use super::request::{Request, Rules};
use crate::deferral::DeferredChains;

/// Number of the ring in [`Files`].
const RING: u64 = 0;

/// The rings that no lane has.
pub(super) type Rings = Arc<Mutex<Vec<Ring<Box<Flight>>>>>;

/// A read or write that the kernel carries out.
#[derive(Debug)]
pub(super) struct Flight {
    pending: Pending,
    request: Request,
}

/// The files of a lane with this ring.
pub(super) fn files(ring: Option<&Ring<Box<Flight>>>) -> io::Result<Option<Files>> {
    let Some(ring) = ring else { return Ok(None) };
    let files = Files::new()?;
    files.add(ring, RING, Interest::Reading)?;
    Ok(Some(files))
}

/// See the module.
pub(super) struct QueueLane {
    index: u16,
    disk: Arc<Disk>,
    rules: Rules,
    /// What helper threads carry out.
    deferred: DeferredChains,
    /// What the kernel carries out, if it does.
    ring: Option<Ring<Box<Flight>>>,
    files: Option<Files>,
    /// Where the ring belongs.
    home: Rings,
}

impl QueueLane {
    pub(super) fn new(
        index: u16,
        disk: Arc<Disk>,
        rules: Rules,
        deferred: DeferredChains,
        ring: Option<Ring<Box<Flight>>>,
        files: Option<Files>,
        home: &Rings,
    ) -> Self {
        Self {
            index,
            disk,
            rules,
            deferred,
            ring,
            files,
            home: Arc::clone(home),
        }
    }

    fn begin(&mut self, mut chain: Chain<'_>) -> Outcome {
        if self.ring.as_ref().is_some_and(Ring::is_full) {
            return chain.put_back();
        }
        // Without a byte for the status, there is nobody to answer.
        let Some(space) = chain.writer.remaining().checked_sub(1) else {
            return chain.done(0);
        };
        match self.rules.parse(&mut chain.reader, space) {
            Err(status) => {
                let written = refuse(status, &mut chain.writer);
                chain.done(written)
            }
            Ok(request @ Request::Identify) => {
                let written = self.disk.perform(&request, &mut chain.reader, &mut chain.writer);
                chain.done(written)
            }
            Ok(request) => {
                let (pending, outcome) = chain.keep();
                if let Err(flight) = self.transfer(Box::new(Flight { pending, request })) {
                    self.hand_out(*flight);
                }
                outcome
            }
        }
    }

    /// Has the kernel carry out a read or write, or gives it back.
    fn transfer(&mut self, flight: Box<Flight>) -> Result<(), Box<Flight>> {
        let Some(ring) = &mut self.ring else { return Err(flight) };
        let image = &self.disk.image;
        match flight.request {
            Request::Read { offset, length } if length > 0 => match flight.pending.target(length) {
                Some(into) => ring.read(image.file_for(offset, length), offset, into, flight),
                None => Err(flight),
            },
            Request::Write { offset, length } if length > 0 => match flight.pending.source(length) {
                Some(from) => {
                    let durable = !self.disk.cache.is_writeback();
                    ring.write(image.file_for(offset, length), offset, from, durable, flight)
                }
                None => Err(flight),
            },
            _ => Err(flight),
        }
    }

    fn hand_out(&mut self, Flight { pending, request }: Flight) {
        let disk = Arc::clone(&self.disk);
        self.deferred
            .hand_out(pending, move |reader, writer| disk.perform(&request, reader, writer));
    }

    /// Passes new transfers to the kernel, and completes those that are finished already.
    fn drive(&mut self, queues: &mut Queues) {
        if let Some(ring) = &mut self.ring
            && let Err(error) = ring.submit()
        {
            error!(%error, "cannot pass requests of a block device to the kernel");
        }
        self.reap(queues);
    }

    fn reap(&mut self, queues: &mut Queues) {
        while let Some(Completion { value, result }) = self.ring.as_mut().and_then(Ring::completed) {
            let result = match result {
                Ok(moved) if moved == value.request.length() => Ok(()),
                // From the start: nothing of it is lost by being moved twice. A thread also learns why the kernel stopped.
                Ok(_) => {
                    self.hand_out(*value);
                    continue;
                }
                Err(error) if is_for_a_thread(&error) => {
                    self.hand_out(*value);
                    continue;
                }
                Err(error) => Err(error),
            };
            let Flight { pending, request } = *value;
            let written = self.disk.answer(&request, result, &mut pending.open().1);
            queues.complete(self.index, pending, written);
        }
    }
}

impl Lane for QueueLane {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        queues.serve(index, |chain| self.begin(chain));
        self.drive(queues);
    }

    fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    fn ready(&mut self, _file: u64, queues: &mut Queues) {
        self.reap(queues);
        if queues.is_waiting(self.index) {
            self.serve(self.index, queues);
        }
    }

    fn complete(&mut self, queues: &mut Queues) {
        self.deferred.complete(queues);
        self.reap(queues);
    }

    fn settle(&mut self, _index: u16, queues: &mut Queues) {
        while let Some(ring) = &mut self.ring
            && ring.in_flight() > 0
        {
            if let Err(error) = ring.wait() {
                error!(%error, "cannot wait for requests of a block device");
                break;
            }
            self.reap(queues);
        }
        self.deferred.settle(queues);
    }
}

impl Drop for QueueLane {
    fn drop(&mut self) {
        let ring = self.ring.take().filter(|ring| ring.in_flight() == 0);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).extend(ring);
    }
}

impl Request {
    /// Bytes to move.
    fn length(&self) -> usize {
        match self {
            Self::Read { length, .. } | Self::Write { length, .. } => *length,
            _ => 0,
        }
    }
}

/// Whether a thread may do better: buffers that are not aligned for direct I/O, and calls that were interrupted.
fn is_for_a_thread(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        matches!(
            errno,
            Errno::INVAL | Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::CANCELED
        )
    })
}
