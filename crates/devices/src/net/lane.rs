//! The lane of one queue pair: its two halves take turns of a bounded number of chains.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use backend::{Files, Lane, Queues, Waker};
use guestmem::Reader;

use super::header::{HEADER, Header};
use super::port::Sent;
use super::receive::{DROPPED_MOST, Receiver, Turn};
use super::shared::{Counts, Pair, Shared};
use super::watch::{PORT, TIMER, Watch};

/// See the module.
pub(super) struct PairLane {
    index: u16,
    shared: Arc<Shared>,
    watch: Watch,
    waker: Waker,
    features: u64,
    receiver: Receiver,
    /// A frame of the guest waits until the port is writable.
    is_sender_waiting: bool,
    /// The receiver waits until the port is readable.
    is_receiver_waiting: bool,
}

impl PairLane {
    /// Makes the lane of pair `index` for a driver that negotiated `features`.
    pub(super) fn new(
        index: u16,
        shared: Arc<Shared>,
        (watch, waker): (Watch, Waker),
        features: u64,
        mtu: Option<u16>,
    ) -> Self {
        Self {
            index,
            shared,
            watch,
            waker,
            features,
            receiver: Receiver::new(features, mtu),
            is_sender_waiting: false,
            is_receiver_waiting: false,
        }
    }

    fn receive_queue(&self) -> u16 {
        2 * self.index
    }

    fn send_queue(&self) -> u16 {
        2 * self.index + 1
    }

    fn receive(&mut self, queues: &mut Queues) {
        let shared = Arc::clone(&self.shared);
        let Some(mut pair) = shared.pair(self.index) else {
            return;
        };
        let mut turn = Turn::RingIsEmpty;
        for _ in 0..DROPPED_MOST {
            if pair.active && shared.is_link_up() {
                let (queue, offloads) = (self.receive_queue(), shared.offloads());
                turn = self
                    .receiver
                    .turn(queue, queues, &mut *pair.port, offloads, &shared.counts);
            }
            if turn != Turn::Dropped {
                break;
            }
        }
        self.is_receiver_waiting = turn == Turn::PortIsEmpty;
        if turn == Turn::TooFewBuffers {
            self.watch.start_timer();
        } else {
            self.watch.stop_timer();
        }
        match turn {
            Turn::PortIsLost => shared.lose_link(),
            Turn::Dropped => self.waker.wake(),
            Turn::PortIsEmpty | Turn::RingIsEmpty | Turn::TooFewBuffers => {}
        }
        self.attend(&pair);
    }

    fn send(&mut self, queues: &mut Queues) {
        if self.send_turn(queues) == Wanted::Activation {
            self.shared.use_pairs(self.index + 1);
            self.send_turn(queues);
        }
    }

    fn send_turn(&mut self, queues: &mut Queues) -> Wanted {
        let shared = Arc::clone(&self.shared);
        let Some(mut pair) = shared.pair(self.index) else {
            return Wanted::Nothing;
        };
        let mut waits = shared.is_link_up()
            && match pair.port.flush() {
                Sent::Full => true,
                Sent::Lost => {
                    shared.lose_link();
                    false
                }
                Sent::Whole | Sent::Refused => false,
            };
        let mut wanted = Wanted::Nothing;
        queues.serve(self.send_queue(), |mut chain| {
            // QEMU keeps the control queue to itself, and enables the pairs that its guest has chosen. Then a pair is in use from
            // the first frame on that is sent there.
            if !pair.active && !shared.controlled.load(Relaxed) {
                wanted = Wanted::Activation;
                return chain.put_back();
            }
            let sent = if waits {
                Some(Sent::Full)
            } else {
                send(&mut chain.reader, &mut pair, self.features, shared.is_link_up())
            };
            let counter = match sent {
                Some(Sent::Full) => {
                    waits = true;
                    return chain.put_back();
                }
                Some(Sent::Whole) => &shared.counts.sent,
                Some(Sent::Refused) => &shared.counts.refused,
                Some(Sent::Lost) => {
                    shared.lose_link();
                    &shared.counts.refused
                }
                None => &shared.counts.malformed,
            };
            Counts::add(counter);
            chain.done(0)
        });
        self.is_sender_waiting = waits || pair.port.is_flushing() && shared.is_link_up();
        self.attend(&pair);
        wanted
    }

    fn attend(&mut self, pair: &Pair) {
        let up = self.shared.is_link_up();
        let (read, write) = (self.is_receiver_waiting, self.is_sender_waiting);
        self.watch.set(pair.port.file(), up && pair.active && read, up && write);
    }
}

impl Lane for PairLane {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        if index == self.receive_queue() {
            self.receive(queues);
        } else {
            self.send(queues);
        }
    }

    fn files(&self) -> Option<&Files> {
        Some(self.watch.files())
    }

    fn ready(&mut self, file: u64, queues: &mut Queues) {
        match file {
            PORT => {
                if self.is_sender_waiting {
                    self.send(queues);
                }
                self.receive(queues);
            }
            TIMER if self.watch.take_timer() => {
                self.receiver.give_up(&self.shared.counts);
                self.receive(queues);
            }
            _ => {}
        }
    }
}

/// What a turn of the sending half needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// The pair is to be used from now on.
    Activation,
}

/// Sends the frame of a chain. `None` if it, or its header, breaks the rules.
fn send(reader: &mut Reader<'_>, pair: &mut Pair, features: u64, link: bool) -> Option<Sent> {
    let header: Header = reader.read_object().ok()?;
    let header = header.outgoing(features, reader.remaining())?;
    debug_assert_eq!(reader.consumed(), HEADER);
    if !link || !pair.active {
        return Some(Sent::Refused);
    }
    Some(pair.port.send(&header, reader))
}
