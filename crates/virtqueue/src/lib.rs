//! Split and packed virtqueues of VIRTIO 1.1, device half and driver half.
