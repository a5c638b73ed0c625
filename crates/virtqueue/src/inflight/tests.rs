//! A device that is cut off in front of each of its stores, and its successor, against a driver that sees every chain used once.

mod hostile;
mod layout;
mod model;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Stores that the device may still do; `None`: as many as it likes.
    static STORES_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What a device that is cut off unwinds with.
struct Cut;

/// The ring and the record call this in front of every store.
pub(crate) fn before_store() {
    match STORES_LEFT.get() {
        None => {}
        Some(0) => {
            STORES_LEFT.set(None);
            resume_unwind(Box::new(Cut));
        }
        Some(left) => STORES_LEFT.set(Some(left - 1)),
    }
}

/// Runs the device for at most as many stores as are left. `None` if it was cut off.
fn run<T>(left: &mut Option<u32>, device: impl FnOnce() -> T) -> Option<T> {
    STORES_LEFT.set(*left);
    let result = catch_unwind(AssertUnwindSafe(device));
    *left = STORES_LEFT.replace(None);
    match result {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Cut>() => None,
        Err(cause) => resume_unwind(cause),
    }
}
