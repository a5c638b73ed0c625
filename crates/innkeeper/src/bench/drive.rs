//! Keeps a number of operations on their way in a ring for some time, and counts.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use driver::Ticket;
use hdrhistogram::Histogram;
use rustix::fs::{Advice, fadvise};

use super::error::Error;
use super::message::{Message, Reply};
use super::scratch::{COLD, Scratch};
use super::session::{Forgets, Lane, Session};
use super::steps::{Common, Next, Steps, steps};
use super::workload::Workload;

/// The longest latency that is told apart.
const LATENCY_MOST: u64 = 100_000_000_000;

/// What was done in some time.
#[derive(Debug)]
pub(super) struct Tally {
    /// Operations, entries or bytes.
    pub(super) items: u64,
    pub(super) elapsed: Duration,
    /// Nanoseconds an operation.
    pub(super) latency: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            items: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LATENCY_MOST, 3).expect("the bounds are right"),
        }
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanoseconds);
    }

    /// What another lane did in the same time.
    pub(super) fn join(&mut self, other: &Self) {
        self.items += other.items;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
    }
}

/// One of the operations that are on their way at the same time.
pub(super) struct Seat {
    steps: Box<dyn Steps>,
    message: Message,
    reply: Reply,
    began: Instant,
}

/// The seats of all lanes for a workload.
pub(super) fn seats(session: &Session, workload: Workload, scratch: &Scratch) -> Result<Vec<Vec<Seat>>, Error> {
    let cold = File::open(scratch.share().join(COLD)).map_err(Error::system("open the cold file"))?;
    // All of it: large folios go as a whole or not at all. Later reads make small ones.
    fadvise(&cold, 0, None, Advice::DontNeed).map_err(Error::system("drop pages"))?;
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
    Ok((0..session.lanes.len() as u64).map(of_lane).collect())
}

/// Drives all lanes at once, a thread each.
pub(super) fn drive(
    session: &mut Session,
    seats: &mut [Vec<Seat>],
    limit: Duration,
    stop: &AtomicBool,
) -> Result<Tally, Error> {
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
        let mut all = Tally::new();
        for thread in threads {
            match thread.join() {
                Ok(tally) => all.join(&tally?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
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
                let more = match next {
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
        if items > 0 {
            tally.record(now - self.began);
            tally.items += items;
        }
        self.began = now;
        now < end && !stop.load(Relaxed)
    }
}
