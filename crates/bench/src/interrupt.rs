//! Signals that end a measurement: remembered, so that everything is cleaned up in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::thread;

use process::signals::{ENDING, Signals};

use crate::error::Error;

/// Whether a signal has come, and which.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// For those who look between two steps.
    pub(crate) flag: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// To be called before the first thread.
    pub(crate) fn watch() -> Result<Self, Error> {
        let signals = Signals::take(&ENDING).map_err(Error::system("wait for signals"))?;
        let this = Self {
            flag: Arc::default(),
            signal: Arc::default(),
        };
        let (flag, signal) = (Arc::clone(&this.flag), Arc::clone(&this.signal));
        thread::spawn(move || {
            if let Ok(number) = signals.wait() {
                signal.store(number, Relaxed);
                flag.store(true, Relaxed);
            }
        });
        Ok(this)
    }

    /// The number of the signal, 0 for none.
    pub(crate) fn signal(&self) -> i32 {
        self.signal.load(Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.flag.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}
