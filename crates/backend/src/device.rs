//! What a device is to this crate: a control plane that answers questions, and a lane for each started queue.

use std::sync::Arc;

use guestmem::Window;
use virtqueue::{Queue, Served, Violation};

/// Control plane of a device. It outlives its front ends: one value serves one virtual machine after the other.
pub trait Device: Send + Sync {
    /// Feature bits of the device and its rings, as the guest may see them; this crate adds those of vhost-user.
    fn features(&self) -> u64;

    /// Number of virtqueues.
    fn queue_count(&self) -> u16;

    /// The configuration space, whole.
    fn config(&self) -> Vec<u8>;

    /// The data path of queue `index`, which is about to start with the feature bits that the guest acknowledged.
    fn lane(&self, index: u16, acknowledged: u64) -> Box<dyn Lane>;

    /// Bytes of shared memory region 0, into which the device maps files for the guest (VIRTIO 1.2 2.10); 0: there is none.
    fn window_size(&self) -> u64 {
        0
    }

    /// The window of the front end that has just connected. `None`: it has gone, and the window with it.
    fn set_window(&self, _window: Option<Arc<dyn Window>>) {}

    /// The guest reset the device, or its front end went away. No lane runs meanwhile.
    fn reset(&self);
}

/// Data path of one queue, on a thread of its own.
pub trait Lane: Send {
    /// Serves what is available, within a bound of its own: `more` in the answer asks to be called again at once.
    fn serve(&mut self, queue: &mut Queue) -> Result<Served, Violation>;
}
