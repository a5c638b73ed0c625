//! A device that logs what it executes, and answers out of order.

use std::io;
use std::os::fd::OwnedFd;

use backend::{Device, Lane, Lanes, Queues, Setup};
use virtqueue::Pending;

/// Queues, of which the first two share a lane.
pub(crate) const QUEUES: u16 = 3;
/// Chains that a lane keeps before it completes them, the latest first.
const KEPT_MOST: usize = 5;

/// Adds 1 to each request, and writes its number to a log before it answers.
pub(crate) struct Counted {
    pub(crate) log: OwnedFd,
}

struct CountedLane {
    log: OwnedFd,
    kept: Vec<(u64, Pending)>,
}

impl Device for Counted {
    fn queue_count(&self) -> u16 {
        QUEUES
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn tracks_inflight(&self) -> bool {
        true
    }

    fn start(&self, _: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        for queues in [&[0, 1][..], &[2]] {
            let log = self.log.try_clone()?;
            lanes.add(queues, |_| CountedLane { log, kept: Vec::new() })?;
        }
        Ok(())
    }

    fn reset(&self) {}
}

impl Lane for CountedLane {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        loop {
            let Self { log, kept } = self;
            queues.serve(index, |mut chain| {
                if kept.len() == KEPT_MOST {
                    return chain.put_back();
                }
                let mut request = [0; 8];
                chain.reader.read_exact(&mut request).unwrap();
                rustix::io::write(&*log, &request).unwrap();
                let (pending, outcome) = chain.keep();
                kept.push((u64::from_le_bytes(request), pending));
                outcome
            });
            if kept.is_empty() {
                return;
            }
            for (request, pending) in kept.drain(..).rev() {
                pending.open().1.write_all(&(request + 1).to_le_bytes()).unwrap();
                queues.complete(index, pending, 8);
            }
        }
    }
}
