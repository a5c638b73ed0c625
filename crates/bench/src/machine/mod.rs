//! Counters of the kernel during a measurement.

pub(crate) mod other_work;
pub(crate) mod syscalls;
