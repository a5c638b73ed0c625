//! The VIRTIO devices, one module each.
