//! Confines child processes, and looks at them from outside and from inside.
#![allow(
    unsafe_code,
    reason = "children are made by fork(2), and attacks are raw system calls"
)]

mod attacks;
mod child;
mod choice;
mod declared;
mod files;
mod modes;
mod powers;
mod seccomp;
mod threads;
mod world;
