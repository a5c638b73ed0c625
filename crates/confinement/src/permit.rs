//! How a system call is allowed.

use crate::argument::Argument;
use crate::system_calls::SystemCall;

/// A system call, and the arguments with which it is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    pub(crate) call: SystemCall,
    /// One of these, each with all its checks. Empty: with any arguments.
    pub(crate) when: &'static [&'static [Argument]],
}

impl SystemCall {
    /// Allows it with any arguments.
    #[must_use]
    pub const fn any(self) -> Permit {
        Permit { call: self, when: &[] }
    }

    /// Allows it with arguments that pass all checks of one of the lists in `when`, of which there is at least one.
    #[must_use]
    pub const fn when(self, when: &'static [&'static [Argument]]) -> Permit {
        assert!(!when.is_empty(), "no arguments would pass");
        Permit { call: self, when }
    }
}
