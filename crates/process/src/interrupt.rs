//! Signals that end a work which takes its time: remembered, so that everything is cleaned up in order.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI32,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread;

use crate::Error;
use crate::signals::{ENDING, Signals};

/// Not a failure: a signal has come.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Whether a signal has come, and which.
#[derive(Debug)]
pub struct Interrupt {
    /// For those who look between two steps.
    pub flag: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Takes [`ENDING`]. To be called before the first thread.
    ///
    /// # Errors
    ///
    /// The system has no descriptor for the signals.
    pub fn watch() -> Result<Self, Error> {
        let signals = Signals::take(&ENDING).map_err(Error::system("wait for signals"))?;
        let this = Self {
            flag: Arc::default(),
            signal: Arc::default(),
        };
        let (flag, signal) = (Arc::clone(&this.flag), Arc::clone(&this.signal));
        thread::spawn(move || {
            if let Ok(number) = signals.wait() {
                signal.store(number, Relaxed);
                flag.store(true, Release);
            }
        });
        Ok(this)
    }

    /// To be called between two steps.
    ///
    /// # Errors
    ///
    /// A signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.status().map_or(Ok(()), |_| Err(Interrupted))
    }

    /// The exit status, as a shell has it, once a signal has come.
    #[must_use]
    pub fn status(&self) -> Option<u8> {
        let status = || 128 + u8::try_from(self.signal.load(Relaxed)).unwrap_or(0);
        self.flag.load(Acquire).then(status)
    }
}
