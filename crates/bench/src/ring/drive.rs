//! Keeps a number of operations in flight in a ring for some time, and counts.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use driver::Ticket;

use crate::error::Error;
use crate::ring::message::{Message, Reply};
use crate::ring::session::{Forgets, Lane, Session};
use crate::ring::steps::common::Common;
use crate::ring::steps::operation::{Next, Steps};
use crate::ring::steps::steps;
use crate::ring::workload::{Kind, Workload};
use crate::scratch::{COLD, Scratch};
use crate::tally::Tally;

/// What is on its way at the end of a round has so long to come to its own end.
const OVERTIME: Duration = Duration::from_secs(30);
/// Messages after which that is looked at.
const LOOK: u32 = 16;

/// One of the operations that are on their way at the same time.
pub(crate) struct Seat {
    steps: Box<dyn Steps>,
    message: Message,
    reply: Reply,
    began: Instant,
}

/// The seats of all lanes for a workload.
pub(crate) struct Seats {
    lanes: Vec<Vec<Seat>>,
    common: Arc<Common>,
    /// Whether there are reads that must find nothing in the page cache.
    cold: bool,
}

/// Makes them, with nothing measured yet.
pub(crate) fn seats(session: &Session, workload: Workload, scratch: &Scratch) -> Result<Seats, Error> {
    let cold = File::open(scratch.share().join(COLD)).map_err(Error::system("open the cold file"))?;
    let common = Common::new(session.nodes.clone(), scratch.sizes.data, cold);
    let depth = u64::from(workload.depth);
    let of_lane = |lane: u64| {
        let numbers = lane * depth..(lane + 1) * depth;
        numbers
            .map(|number| Seat {
                steps: steps(workload.kind, &common, number, number % depth == 0),
                // Numbers of different seats are told apart by their upper half.
                message: Message::new((number + 1) << 32),
                reply: Reply::new(),
                began: Instant::now(),
            })
            .collect()
    };
    Ok(Seats {
        lanes: (0..session.lanes.len() as u64).map(of_lane).collect(),
        common: Arc::clone(&common),
        cold: workload.kind == Kind::Mixed,
    })
}

/// Drives all lanes at once, a thread each.
pub(crate) fn drive(
    session: &mut Session,
    seats: &mut Seats,
    limit: Duration,
    stop: &AtomicBool,
) -> Result<Tally, Error> {
    if seats.cold {
        // The file and its pages are the same for all contenders: those of the round before have read it.
        seats.common.cool()?;
    }
    let seats = &mut seats.lanes[..];
    let forgets = &session.forgets;
    if let ([lane], [seats]) = (&mut session.lanes[..], &mut *seats) {
        return lane.drive(forgets, seats, limit, stop);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = session
            .lanes
            .iter_mut()
            .zip(seats)
            .map(|(lane, seats)| scope.spawn(|| lane.drive(forgets, seats, limit, stop)))
            .collect();
        Tally::of_threads(threads)
    })
}

impl Lane {
    fn drive(
        &mut self,
        forgets: &Forgets,
        seats: &mut [Seat],
        limit: Duration,
        stop: &AtomicBool,
    ) -> Result<Tally, Error> {
        let mut tally = Tally::new();
        let start = Instant::now();
        let end = start + limit;
        for (index, seat) in seats.iter_mut().enumerate() {
            seat.began = Instant::now();
            seat.steps.first(&mut self.slots[index], &mut seat.message)?;
            self.post(index, &seat.message)?;
        }
        self.queue.kick_if_wanted()?;
        let mut running = seats.len();
        let mut messages = 0_u32;
        while running > 0 {
            let mut used = Some(self.queue.wait_used()?);
            // Whatever else is there already makes one batch with one kick.
            while let Some((ticket, written)) = used {
                let index = self.owner(ticket);
                let seat = &mut seats[index];
                let slot = &mut self.slots[index];
                slot.read_reply(&mut seat.reply.bytes)?;
                seat.reply.check(seat.message.unique(), written)?;
                let next = seat.steps.next(&seat.reply, slot, &mut seat.message)?;
                messages = messages.wrapping_add(1);
                let more = match next {
                    Next::Send if stop.load(Relaxed) => return Err(Error::Interrupted),
                    Next::Send if messages.is_multiple_of(LOOK) && Instant::now() > end + OVERTIME => {
                        return Err(Error::Endless {
                            seconds: OVERTIME.as_secs(),
                        });
                    }
                    Next::Send => true,
                    Next::Done(items) => seat.done(items, &mut tally, end, stop),
                    Next::DoneAndForget(node) => {
                        forgets.send(node)?;
                        seat.done(1, &mut tally, end, stop)
                    }
                };
                if more {
                    if next != Next::Send {
                        seat.steps.first(slot, &mut seat.message)?;
                    }
                    self.post(index, &seat.message)?;
                } else {
                    running -= 1;
                }
                used = self.queue.used()?;
            }
            self.queue.kick_if_wanted()?;
        }
        tally.elapsed = start.elapsed();
        Ok(tally)
    }

    fn post(&mut self, index: usize, message: &Message) -> Result<(), Error> {
        let ticket = self
            .queue
            .post_slot(&mut self.slots[index], message.shape(), message.bytes())?;
        self.owners[usize::from(ticket.0)] = index;
        Ok(())
    }

    fn owner(&self, ticket: Ticket) -> usize {
        self.owners[usize::from(ticket.0)]
    }
}

impl Seat {
    /// Counts the operation; tells whether another one is to follow.
    fn done(&mut self, items: u64, tally: &mut Tally, end: Instant, stop: &AtomicBool) -> bool {
        let now = Instant::now();
        tally.operations += 1;
        if items > 0 {
            tally.record(now - self.began);
            tally.items += items;
        }
        self.began = now;
        now < end && !stop.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use devices::fs::{FsDevice, FsOptions};
    use fuse::passthrough::{Options, Passthrough};
    use fuse::server::Server;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::ring::session::Connection;
    use crate::scratch::Sizes;

    /// What so many rounds of no length come to, of a daemon in this process: each seat is asked once a round.
    fn rounds<const N: usize>(kind: Kind, depth: u16, stop: bool) -> [Result<Tally, Error>; N] {
        let directory = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            files: 3,
            entries: 300,
            data: 2 << 20,
            known: 0,
        };
        let scratch = Scratch::make(directory.path(), sizes, 1, &AtomicBool::new(false)).unwrap();
        let options = FsOptions {
            tag: "share".into(),
            request_queues: 1,
            window_size: 0,
            ..FsOptions::default()
        };
        let share = Passthrough::new(&scratch.share(), Options::default()).unwrap();
        let device = FsDevice::new(options, Server::new(share)).unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let end = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| backend::serve(&listener, &device, backend::Options::default(), end.as_fd()).unwrap());
            let connection = Connection {
                queues: 1,
                packed: false,
            };
            let stream = UnixStream::connect(&socket).unwrap();
            let mut session = Session::mount(stream, connection, sizes, 0).unwrap();
            let mut seats = seats(&session, Workload { kind, depth }, &scratch).unwrap();
            let stop = AtomicBool::new(stop);
            let rounds = [(); N].map(|()| drive(&mut session, &mut seats, Duration::ZERO, &stop));
            rustix::io::write(&end, &1_u64.to_ne_bytes()).unwrap();
            rounds
        })
    }

    #[test]
    fn a_signal_ends_an_operation_in_the_middle() {
        let [round] = rounds(Kind::Readdirplus, 1, true);
        assert!(matches!(round, Err(Error::Interrupted)), "{round:?}");
        let [round] = rounds(Kind::Readdirplus, 1, false);
        assert!(round.unwrap().items >= 300);
    }

    #[test]
    fn what_disturbs_is_an_operation_without_a_latency() {
        for round in rounds::<2>(Kind::Mixed, 3, false) {
            let tally = round.unwrap();
            assert_eq!((tally.operations, tally.latency.len(), tally.items), (3, 1, 1));
        }
    }
}
