//! The control plane and the lanes, with an echo device, on split and packed rings.

mod control;
mod counted;
mod echo;
mod handover;
mod inflight;
mod killed;
mod lanes;
mod session;
