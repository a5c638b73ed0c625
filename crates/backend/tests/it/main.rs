//! The control plane and the lanes, by a device that echoes, with split and packed rings.

mod control;
mod echo;
mod lanes;
mod session;
