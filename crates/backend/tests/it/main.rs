//! The control plane and the lanes, by a device that echoes, with split and packed rings.

mod control;
mod echo;
mod handover;
mod lanes;
mod session;
