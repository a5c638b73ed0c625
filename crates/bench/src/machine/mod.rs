//! What the kernel counts while something is measured.

pub(crate) mod other_work;
pub(crate) mod syscalls;
