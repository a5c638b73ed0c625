//! Chains that helper threads finish, while the lane serves the chains behind them. No device of its own: devices share it.

mod chains;
mod helpers;

pub(crate) use chains::DeferredChains;
pub(crate) use helpers::Helpers;
