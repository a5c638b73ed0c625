//! The control plane and the lanes, with an echo device, on split and packed rings.

mod control;
mod echo;
mod handover;
mod lanes;
mod session;
