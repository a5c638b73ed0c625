//! Arbitrary frames, headers, buffers, commands and ring contents, against a model: frames arrive whole, in order and
//! once, or not at all. The fuzz target `net` runs the same body.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};

use devices::net::features::{CTRL_MAC_ADDR, CTRL_VQ, MRG_RXBUF};
use virtqueue::Buffer;
use virtqueue::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC};

use crate::bytes::Bytes;
use crate::driver::{Client, Daemon, HEADER, Network, PLAIN, RECEIVE, frame, options};

/// Longer sessions take no input to new places.
const MOST_STEPS: u32 = 100;
const CONTROL: usize = 2;

/// Runs the guest that the bytes describe, and then a proper one. Returns how many frames went in and out.
pub(crate) fn run(bytes: &[u8]) -> (usize, usize) {
    let mut bytes = Bytes(bytes);
    let (daemon, mut network) = Daemon::with_network(PLAIN);
    let choice = bytes.u8();
    let has = |bit: u8, feature| if choice >> bit & 1 != 0 { feature } else { 0 };
    let features = has(1, MRG_RXBUF) | has(2, IN_ORDER) | CTRL_VQ | CTRL_MAC_ADDR;
    let client = daemon.connect(&::driver::Options {
        queue_size: 16,
        features: options(false, features).features & !(EVENT_IDX | INDIRECT_DESC)
            | has(3, EVENT_IDX)
            | has(4, INDIRECT_DESC),
        descriptor_bytes: 400 + u32::from(bytes.u16() % 3000),
        ..options(choice & 1 != 0, features)
    });
    let mut session = Session {
        mergeable: features & MRG_RXBUF != 0,
        client,
        network: &mut network,
        incoming: VecDeque::new(),
        outgoing: VecDeque::new(),
        counts: (0, 0),
        broken: false,
    };
    let mut steps = 0;
    while !bytes.is_empty() && steps < MOST_STEPS && !session.broken {
        steps += 1;
        session.step(&mut bytes);
    }
    let counts = session.counts;
    drop(session);
    let mut next = daemon.connect(&options(false, MRG_RXBUF));
    next.send(b"the next guest is served");
    loop {
        if network.receive() == b"the next guest is served" {
            return counts;
        }
    }
}

struct Session<'a> {
    client: Client,
    network: &'a mut Network,
    mergeable: bool,
    /// Frames for the guest that may still arrive.
    incoming: VecDeque<Vec<u8>>,
    /// Good frames of the guest that must still arrive, in order.
    outgoing: VecDeque<Vec<u8>>,
    counts: (usize, usize),
    /// The driver has broken the rules of a ring, and knows no longer what to expect.
    broken: bool,
}

impl Session<'_> {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            0..=79 => self.send(bytes),
            // As many as the socket takes without anybody who reads.
            80..=149 if self.incoming.len() < 20 => {
                let frame = frame(bytes.u8(), 1 + usize::from(bytes.u16() % 3000));
                self.network.send(&frame);
                self.incoming.push_back(frame);
            }
            80..=199 => {
                let space = u32::from(bytes.u16() % 3200);
                // The ring may be full.
                let _offered = self.client.0.queues[RECEIVE].submit(bytes.some(3), space);
            }
            200..=229 => self.receive(),
            230..=239 => {
                let command = bytes.some(20).to_vec();
                let (written, answer) = self.client.0.queues[CONTROL].call(&command, 1).unwrap();
                assert!(written == 1 && answer[0] <= 1, "{answer:?}");
            }
            240..=249 => {
                let queue = usize::from(bytes.u8() % 2);
                let base = self.client.0.stop(queue as u16).unwrap();
                self.client.0.start(queue as u16, base).unwrap();
            }
            250..=252 => {
                let buffer = Buffer {
                    address: bytes.u64(),
                    length: bytes.u32(),
                };
                let queue = usize::from(bytes.u8() % 2);
                let queue = &mut self.client.0.queues[queue];
                if queue.ring().post(&[buffer], &[]).is_ok() {
                    queue.kick().unwrap();
                }
                self.broken = true;
            }
            _ => {
                let config = self.client.0.queues[usize::from(bytes.u8() % 3)].config().clone();
                let part = bytes.one(&[config.descriptor, config.driver, config.device]);
                let written = self
                    .client
                    .0
                    .memory()
                    .write(part + u64::from(bytes.u8()), bytes.some(40));
                written.unwrap();
                self.broken = true;
                self.client.0.queues.iter().for_each(|queue| queue.kick().unwrap());
            }
        }
    }

    fn send(&mut self, bytes: &mut Bytes<'_>) {
        let frame = frame(bytes.u8(), usize::from(bytes.u16() % 3000));
        let mut header = [0; HEADER];
        if bytes.u8().is_multiple_of(4) {
            let given = bytes.some(HEADER);
            header[..given.len()].copy_from_slice(given);
        }
        self.client.send_with(header, &frame);
        // No offload was negotiated.
        if header[0] & 1 == 0 && header[1] == 0 && frame.len() >= 14 {
            self.outgoing.push_back(frame);
        }
        while let Some(wanted) = self.outgoing.pop_front() {
            assert_eq!(self.network.receive(), wanted);
            self.counts.1 += 1;
        }
        self.network.0.set_nonblocking(true).unwrap();
        let more = self.network.0.read(&mut [0]).map_err(|error| error.kind());
        self.network.0.set_nonblocking(false).unwrap();
        assert_eq!(more, Err(ErrorKind::WouldBlock), "a frame that was not sent");
    }

    /// Takes the frames that have arrived.
    fn receive(&mut self) {
        while let Some((_, written, mut chain)) = self.client.0.queues[RECEIVE].poll().unwrap() {
            if written == 0 {
                continue;
            }
            let mut body = chain.split_off(HEADER);
            let count = u16::from_le_bytes([chain[10], chain[11]]);
            assert!(
                chain[..10] == [0; 10] && count > 0 && (count == 1 || self.mergeable),
                "{chain:?}"
            );
            for _ in 1..count {
                let (_, _, more) = self.client.0.queues[RECEIVE].poll().unwrap().expect("used together");
                body.extend(more);
            }
            let position = self.incoming.iter().position(|frame| *frame == body);
            let position = position.expect("a frame of the network, behind the last one");
            self.incoming.drain(..=position);
            self.counts.0 += 1;
        }
    }
}
