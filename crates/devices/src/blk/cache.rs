//! When a write is durable: at its completion, or after a later flush (VIRTIO 1.1 5.2.5.1, 5.2.6.2).

use std::sync::{Mutex, PoisonError};

use super::feature;

/// What driver and front end have chosen.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Feature bits that the driver acknowledged; `None` before.
    features: Option<u64>,
    /// The last value written to `writeback`.
    writeback: Option<bool>,
}

impl Cache {
    /// Whether writes may be completed before they are durable: the value of `writeback`.
    pub(super) fn is_writeback(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_writeback()
    }

    /// Notes the features that the driver has acknowledged.
    pub(super) fn negotiated(&self, features: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).features = Some(features);
    }

    /// Takes a value of `writeback`.
    pub(super) fn set(&self, writeback: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).writeback = Some(writeback);
    }

    pub(super) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }
}

impl State {
    fn is_writeback(&self) -> bool {
        // A driver that cannot flush relies on each write.
        let default = self.features.is_none_or(|features| features & feature::FLUSH != 0);
        let may_choose = self.features.is_none_or(|features| features & feature::CONFIG_WCE != 0);
        self.writeback.filter(|_| may_choose).unwrap_or(default)
    }
}
