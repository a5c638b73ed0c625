//! The receiving half of a queue pair (VIRTIO 1.1 5.1.6.4): a frame at a time from the port into one chain, or several.

use backend::Queues;
use guestmem::{CursorError, Writer};
use virtqueue::{Chain, Outcome, Pending};

use super::features;
use super::header::{ETHERNET, FRAME_MAX, HEADER, Header, VLAN_TAG};
use super::port::{Frame, Port, Received};
use super::shared::Counts;

/// Frames dropped in a row before the lane looks at its other work.
pub(super) const DROPPED_MOST: usize = 64;

/// Most chains of one frame: enough for the smallest buffers that a driver may sensibly use.
const CHAINS_MOST: usize = 1024;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There are buffers, and the port is readable once it has a frame.
    PortIsEmpty,
    /// There are buffers. A frame was dropped, and there may be another.
    Dropped,
    /// There are no more buffers, or others are served before the next ones.
    RingIsEmpty,
    /// A frame waits for more buffers than there are.
    TooFewBuffers,
    /// The port is gone for good.
    PortIsLost,
}

/// See the module.
pub(super) struct Receiver {
    features: u64,
    mtu: Option<u16>,
    /// The next frame, unless it went straight into the guest's memory.
    frame: Frame,
}

/// Chains taken in a turn.
#[derive(Default)]
struct Taken {
    /// Frames that lie in several chains, or behind such frames, each to be completed together.
    finished: Vec<Vec<(Pending, u32)>>,
    /// Chains for the frame that is held, and their bytes.
    kept: Vec<Pending>,
    space: usize,
    count: usize,
}

impl Receiver {
    pub(super) fn new(features: u64, mtu: Option<u16>) -> Self {
        Self {
            features,
            mtu: mtu.filter(|_| features & features::MTU != 0),
            frame: Frame::new(),
        }
    }

    /// Drops the frame that waits.
    pub(super) fn give_up(&mut self, counts: &Counts) {
        if !self.frame.is_empty() {
            Counts::add(&counts.unplaced);
            self.frame.clear();
        }
    }

    /// Passes frames of the port to chains of `queue`, up to a bound.
    pub(super) fn turn(
        &mut self,
        queue: u16,
        queues: &mut Queues,
        port: &mut dyn Port,
        offloads: u64,
        counts: &Counts,
    ) -> Turn {
        let mut taken = Taken::default();
        let mut turn;
        loop {
            turn = Turn::RingIsEmpty;
            let before = taken.count;
            queues.serve(queue, |chain| {
                let mut source = Source {
                    frame: &mut self.frame,
                    port,
                    offloads,
                    mtu: self.mtu,
                    counts,
                };
                if self.features & features::MRG_RXBUF == 0 {
                    source.fill_one(chain, &mut turn)
                } else {
                    taken.count += 1;
                    source.fill_several(chain, &mut taken, &mut turn)
                }
            });
            for frame in taken.finished.drain(..) {
                queues.complete_together(queue, &frame);
            }
            // A batch may end within a frame.
            if taken.kept.is_empty() || taken.count == before || taken.kept.len() > CHAINS_MOST {
                break;
            }
        }
        if !taken.kept.is_empty() {
            queues.put_back(queue, &taken.kept);
            if taken.kept.len() > CHAINS_MOST {
                self.give_up(counts);
            } else {
                turn = Turn::TooFewBuffers;
            }
        }
        turn
    }
}

/// Where frames come from in a turn, and what the guest can take.
struct Source<'a> {
    frame: &'a mut Frame,
    port: &'a mut dyn Port,
    offloads: u64,
    mtu: Option<u16>,
    counts: &'a Counts,
}

impl Source<'_> {
    /// Without `MRG_RXBUF`: the frame is in one chain, or dropped.
    fn fill_one(&mut self, mut chain: Chain<'_>, turn: &mut Turn) -> Outcome {
        // A chain without space for the header takes no frame.
        let Ok(header_space) = chain.writer.split_at(HEADER) else {
            return chain.done(0);
        };
        match self.fill_directly(header_space, &mut chain.writer) {
            Ok(written) => chain.done(written),
            Err(reason) => {
                *turn = reason;
                chain.put_back()
            }
        }
    }

    /// With `MRG_RXBUF`: a frame takes as many chains as it needs.
    fn fill_several(&mut self, mut chain: Chain<'_>, taken: &mut Taken, turn: &mut Turn) -> Outcome {
        let room = chain.writer.remaining();
        let first = taken.kept.is_empty();
        // Chains behind a frame that is not published yet must not overtake it.
        let alone = first && taken.finished.is_empty();
        if first && room < HEADER {
            if alone {
                return chain.done(0);
            }
            let (pending, outcome) = chain.keep();
            taken.finished.push(vec![(pending, 0)]);
            return outcome;
        }
        if self.frame.is_empty() {
            // The length of a frame is known only when it is gone from the port.
            if alone && room >= HEADER + self.longest() {
                return self.fill_one(chain, turn);
            }
            if let Err(reason) = self.fetch() {
                *turn = reason;
                return chain.put_back();
            }
        }
        let wanted = HEADER + self.frame.bytes().len();
        if alone && room >= wanted {
            let written = self.place(std::slice::from_mut(&mut chain.writer));
            return chain.done(written.map_or(0, |()| wanted as u32));
        }
        let (pending, outcome) = chain.keep();
        taken.space += room;
        taken.kept.push(pending);
        if taken.space >= wanted {
            taken.space = 0;
            let kept = std::mem::take(&mut taken.kept);
            let mut writers: Vec<_> = kept.iter().map(|pending| pending.open().1).collect();
            let placed = self.place(&mut writers);
            let written: Vec<_> = writers
                .iter()
                .map(|writer| placed.map_or(0, |()| writer.written() as u32))
                .collect();
            taken.finished.push(kept.into_iter().zip(written).collect());
        }
        outcome
    }

    /// Moves the frame that is held into chains with enough space: the header into the first, and all but the last are filled
    /// (VIRTIO 1.1 5.1.6.4.1).
    fn place(&mut self, chains: &mut [Writer<'_>]) -> Result<(), CursorError> {
        let mut header = self.frame.header;
        header.num_buffers = u16::try_from(chains.len()).unwrap_or(u16::MAX).into();
        let mut rest = self.frame.bytes();
        let mut placed = chains.first_mut().map_or(Ok(()), |first| first.write_object(&header));
        for chain in chains {
            let (now, later) = rest.split_at(chain.remaining().min(rest.len()));
            placed = placed.and_then(|()| chain.write_all(now));
            rest = later;
        }
        self.frame.clear();
        Counts::add(if placed.is_ok() {
            &self.counts.received
        } else {
            &self.counts.unplaced
        });
        placed
    }

    /// Most bytes of a frame that the guest can take.
    fn longest(&self) -> usize {
        match self.mtu {
            Some(mtu) if self.offloads & features::GUEST_SEGMENTS == 0 => usize::from(mtu) + ETHERNET + VLAN_TAG,
            _ => FRAME_MAX,
        }
    }

    /// The frame goes from the port into the guest's memory.
    fn fill_directly(&mut self, mut header_space: Writer<'_>, space: &mut Writer<'_>) -> Result<u32, Turn> {
        let mut header = Header::default();
        let length = match self.port.receive_into(&mut header, space) {
            Received::Frame(length) => length,
            Received::Cut => {
                Counts::add(&self.counts.unplaced);
                return Err(Turn::Dropped);
            }
            Received::Unreachable => return Ok(0),
            Received::Nothing => return Err(Turn::PortIsEmpty),
            Received::Lost => return Err(Turn::PortIsLost),
        };
        let Some(header) = self.suitable(header, length) else {
            return Err(Turn::Dropped);
        };
        if header_space.write_object(&header).is_err() {
            Counts::add(&self.counts.unplaced);
            return Ok(0);
        }
        Counts::add(&self.counts.received);
        Ok((HEADER + length) as u32)
    }

    /// Gets the next frame that the guest can take into memory of our own.
    fn fetch(&mut self) -> Result<(), Turn> {
        match self.port.receive(self.frame) {
            Received::Frame(length) => {
                let header = self.suitable(self.frame.header, length).ok_or(Turn::Dropped)?;
                self.frame.header = header;
                self.frame.set(length);
                Ok(())
            }
            Received::Cut | Received::Unreachable => {
                Counts::add(&self.counts.unplaced);
                Err(Turn::Dropped)
            }
            Received::Nothing => Err(Turn::PortIsEmpty),
            Received::Lost => Err(Turn::PortIsLost),
        }
    }

    fn suitable(&self, header: Header, length: usize) -> Option<Header> {
        let header = header.incoming(self.offloads, length).filter(|header| {
            let most = self.mtu.map_or(FRAME_MAX, |mtu| usize::from(mtu) + ETHERNET + VLAN_TAG);
            header.is_segmented() || length <= most
        });
        if header.is_none() {
            Counts::add(&self.counts.unsuitable);
        }
        header
    }
}
