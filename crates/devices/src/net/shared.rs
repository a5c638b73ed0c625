//! State that the lanes of a device share: queue pairs, offloads, link, addresses, counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backend::{ConfigChanges, Waker};
use tracing::{error, warn};

use super::features;
use super::port::Port;

/// A MAC address.
pub type Mac = [u8; 6];

/// See the module.
pub(super) struct Shared {
    pairs: Vec<Mutex<Pair>>,
    /// The lanes of the pairs.
    wakers: Mutex<Vec<Waker>>,
    /// The offloads that the guest has switched on.
    offloads: AtomicU64,
    /// The driver uses the control queue, which is then what says how many pairs are in use.
    pub(super) controlled: AtomicBool,
    link: AtomicBool,
    own_mac: Mac,
    mac: Mutex<Mac>,
    changes: Mutex<ConfigChanges>,
    pub(super) counts: Counts,
}

/// A queue pair's port. Whoever uses it holds the lock of the pair, so that a pair that is switched off is used no more.
pub(super) struct Pair {
    pub(super) port: Box<dyn Port>,
    pub(super) active: bool,
}

/// What became of frames, since the device was made.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames of guests that went out.
    pub sent: AtomicU64,
    /// Frames of guests that were dropped because they, or their headers, break the rules (VIRTIO 1.1 5.1.6.2).
    pub malformed: AtomicU64,
    /// Frames of guests that the host did not take.
    pub refused: AtomicU64,
    /// Frames that guests got.
    pub received: AtomicU64,
    /// Frames for guests that were dropped because their buffers are too small, too few or cannot be reached.
    pub unplaced: AtomicU64,
    /// Frames for guests that were dropped because the guest could not make sense of them: longer than the MTU, or with an
    /// offload that is off.
    pub unsuitable: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

impl Shared {
    pub(super) fn new(ports: Vec<Box<dyn Port>>, mac: Mac) -> Self {
        let pair = |port| Mutex::new(Pair { port, active: false });
        Self {
            pairs: ports.into_iter().map(pair).collect(),
            wakers: Mutex::default(),
            offloads: AtomicU64::new(0),
            controlled: AtomicBool::new(false),
            link: AtomicBool::new(true),
            own_mac: mac,
            mac: Mutex::new(mac),
            changes: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Everything as a driver finds it that has negotiated `acknowledged`: one pair, and all offloads on (VIRTIO 1.1 5.1.5).
    pub(super) fn begin(&self, acknowledged: u64, changes: ConfigChanges) {
        *locked(&self.changes) = changes;
        *locked(&self.mac) = self.own_mac;
        locked(&self.wakers).clear();
        self.controlled.store(false, Relaxed);
        self.use_pairs(1);
        self.set_offloads(acknowledged & features::GUEST_OFFLOADS);
    }

    pub(super) fn count_of_pairs(&self) -> u16 {
        u16::try_from(self.pairs.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn add_waker(&self, waker: Waker) {
        locked(&self.wakers).push(waker);
    }

    pub(super) fn pair(&self, index: u16) -> Option<MutexGuard<'_, Pair>> {
        self.pairs.get(usize::from(index)).map(locked)
    }

    /// Uses the first `count` pairs. When this returns, no other is in use.
    pub(super) fn use_pairs(&self, count: u16) {
        for (index, pair) in (0..).zip(&self.pairs) {
            let mut pair = locked(pair);
            let active = index < count;
            let attached = pair.port.set_attached(active);
            attached.unwrap_or_else(|error| error!(pair = index, %error, "cannot switch a queue pair"));
            pair.active = active;
        }
        locked(&self.wakers).iter().for_each(Waker::wake);
    }

    pub(super) fn offloads(&self) -> u64 {
        self.offloads.load(Relaxed)
    }

    pub(super) fn set_offloads(&self, offloads: u64) {
        if let Some(mut pair) = self.pair(0) {
            let set = pair.port.set_offloads(offloads);
            set.unwrap_or_else(|error| error!(%error, "cannot switch offloads"));
        }
        self.offloads.store(offloads, Relaxed);
    }

    pub(super) fn mac(&self) -> Mac {
        *locked(&self.mac)
    }

    pub(super) fn set_mac(&self, mac: Mac) {
        *locked(&self.mac) = mac;
    }

    pub(super) fn is_link_up(&self) -> bool {
        self.link.load(Relaxed)
    }

    /// A port is gone for good.
    pub(super) fn lose_link(&self) {
        if self.link.swap(false, Relaxed) {
            warn!("the network has gone away: the guest's link is down until innkeeper is restarted");
            locked(&self.changes).announce();
            // Frames that wait for the port are dropped.
            locked(&self.wakers).iter().for_each(Waker::wake);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
