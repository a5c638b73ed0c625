//! Credentials of a request on the host: identity, capabilities and umask of the calling thread.
//!
//! The raw system calls change only one thread, so that every lane can act for another caller at the same time. All
//! changes are guards: they end with the operation, on every path.

mod caller;
mod daemon;
mod killpriv;
mod umask;
mod writer;

pub(super) use self::caller::UNMAPPED;
pub(super) use self::daemon::Credentials;
pub(super) use self::umask::UmaskGuard;
pub(super) use self::writer::WriterGuard;

#[cfg(test)]
mod tests;
