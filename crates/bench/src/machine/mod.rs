//! What the kernel counts while something is measured.

pub(crate) mod syscalls;
