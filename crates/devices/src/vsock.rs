//! Socket device (VIRTIO 1.2 5.10): AF_VSOCK of the guest, Unix sockets of the host.
//!
//! A guest that connects to port P of the host (CID 2) reaches the program that listens on the Unix socket `PATH_P`. A host program
//! that connects to the Unix socket `PATH` and sends `CONNECT P` in a line reaches the guest's port P, and is answered `OK` with
//! a port of its own. Data goes from guest pages to sockets and back without a copy, unless a socket is full.
//!
//! One thread serves all queues and all sockets, so that there are no locks.

mod connection;
mod connections;
mod credit;
mod host;
mod inbox;
mod outbox;
mod wire;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use backend::{Device, Files, Lane, Lanes, Queues, Setup, Waker};

use self::connections::Connections;
use self::host::Host;
use self::wire::{Flow, TRANSPORT_RESET};

/// CID of the host (VIRTIO 1.2 5.10.4).
pub const HOST_CID: u64 = 2;

/// Most connections of a guest, host programs that have named no port yet included.
pub const CONNECTIONS_MOST: usize = 4096;

/// Connections remembered that the guest may still believe in.
const LOST_MOST: usize = 2 * CONNECTIONS_MOST;

/// Indices of the queues (VIRTIO 1.2 5.10.2).
const RX: u16 = 0;
const TX: u16 = 1;
const EVENT: u16 = 2;

/// Feature bits (VIRTIO 1.2 5.10.3): stream sockets, and SOCK_SEQPACKET.
const STREAM: u64 = 1 << 0;
const SEQPACKET: u64 = 1 << 1;

/// Guest and sockets of a socket device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockOptions {
    /// CID of the guest: 3 to `u32::MAX - 1`.
    pub guest_cid: u32,
    /// `PATH`: where host programs connect to reach the guest. Ports of the host are the Unix sockets `PATH_P`, which need not exist yet.
    pub path: PathBuf,
    /// Most connections at a time, 1 to [`CONNECTIONS_MOST`]. Each is an open file.
    pub connections: usize,
}

/// Errors in making a socket device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CID belongs to nobody, the hypervisor, the host, or everybody.
    #[error("CID {cid} is reserved; choose one from 3 to {}", u32::MAX - 1)]
    ReservedCid {
        /// The CID.
        cid: u32,
    },
    /// The listener is of no use.
    #[error("cannot use the listener at {}", path.display())]
    Listener {
        /// Its path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The one guest of a device.
#[derive(Clone, Copy, Debug)]
struct Guest {
    cid: u32,
    /// See [`VsockOptions::connections`].
    connections: usize,
}

/// The socket device.
#[derive(Debug)]
pub struct VsockDevice {
    guest: Guest,
    host: Arc<Host>,
    /// Connections that ended with their lane, although the guest was not reset.
    lost: Arc<Mutex<Vec<(Flow, u16)>>>,
}

impl VsockDevice {
    /// `listener` listens at [`VsockOptions::path`].
    pub fn new(options: VsockOptions, listener: UnixListener) -> Result<Self, Error> {
        let VsockOptions {
            guest_cid: cid,
            path,
            connections,
        } = options;
        check_cid(cid)?;
        let host = Host::new(&path, listener).map_err(|source| Error::Listener { path, source })?;
        Ok(Self {
            guest: Guest {
                cid,
                connections: connections.clamp(1, CONNECTIONS_MOST),
            },
            host: Arc::new(host),
            lost: Arc::default(),
        })
    }
}

/// Refuses the CIDs that no guest may have.
pub fn check_cid(cid: u32) -> Result<(), Error> {
    match cid {
        0..=2 | u32::MAX => Err(Error::ReservedCid { cid }),
        _ => Ok(()),
    }
}

impl Device for VsockDevice {
    fn features(&self) -> u64 {
        STREAM | SEQPACKET
    }

    fn queue_count(&self) -> u16 {
        3
    }

    fn config(&self) -> Vec<u8> {
        u64::from(self.guest.cid).to_le_bytes().into()
    }

    fn start(&self, setup: &Setup, lanes: &mut Lanes) -> io::Result<()> {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        let host = Arc::clone(&self.host);
        let has_messages = setup.features & SEQPACKET != 0;
        let connections = Connections::new(self.guest, host, has_messages, lost)?;
        let lost = Arc::clone(&self.lost);
        lanes.add(&[RX, TX, EVENT], |waker| SocketLane {
            connections,
            lost,
            waker: waker.clone(),
        })
    }

    /// The guest's driver starts anew, and knows of no connection.
    fn reset(&self) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

struct SocketLane {
    connections: Connections,
    lost: Arc<Mutex<Vec<(Flow, u16)>>>,
    waker: Waker,
}

impl Drop for SocketLane {
    fn drop(&mut self) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        // More are those of a guest that takes nothing, over and over.
        lost.extend(self.connections.known().take(LOST_MOST));
    }
}

impl Lane for SocketLane {
    fn serve(&mut self, index: u16, queues: &mut Queues) {
        self.connections.listen();
        match index {
            TX => self.take_packets(queues),
            EVENT => return self.send_event(queues),
            _ => {}
        }
        self.send_packets(queues);
    }

    fn files(&self) -> Option<&Files> {
        Some(self.connections.files())
    }

    fn ready(&mut self, file: u64, queues: &mut Queues) {
        self.connections.ready(file);
        self.send_packets(queues);
        self.connections.park(file);
    }
}

impl SocketLane {
    fn take_packets(&mut self, queues: &mut Queues) {
        let connections = &mut self.connections;
        queues.serve(TX, |mut chain| {
            if !connections.has_room() {
                return chain.put_back();
            }
            connections.receive(&mut chain.reader);
            chain.done(0)
        });
    }

    fn send_packets(&mut self, queues: &mut Queues) {
        let connections = &mut self.connections;
        // Without the event queue (QEMU has it for itself), connections are reset one by one.
        if connections.has_lost() && !queues.is_running(EVENT) {
            connections.reset_lost();
        }
        queues.serve(RX, |mut chain| match connections.send(&mut chain.writer) {
            Some(written) => chain.done(written),
            None => chain.put_back(),
        });
        if connections.has_room() && queues.is_waiting(TX) {
            self.waker.wake();
        }
    }

    /// Tells the guest that its connections are gone, if they are (VIRTIO 1.2 5.10.6.7).
    fn send_event(&mut self, queues: &mut Queues) {
        let connections = &mut self.connections;
        queues.serve(EVENT, |mut chain| {
            if !connections.has_lost() {
                return chain.put_back();
            }
            connections.forget_all();
            let written = chain.writer.write_all(&TRANSPORT_RESET.to_le_bytes());
            chain.done(written.map_or(0, |()| 4))
        });
    }
}
