//! How a system call is allowed.

use crate::argument::Argument;
use crate::system_calls::SystemCall;

/// When a system call is made, if ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// Whenever all that a device does is done once.
    Usual,
    /// Likewise, if the daemon has capabilities.
    Privileged,
    /// For this reason, which takes another C library, architecture or kernel, or an accident.
    Rarely(&'static str),
}

/// A system call, and the arguments with which it is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    pub(crate) call: SystemCall,
    /// One of these, each with all its checks. Empty: with any arguments.
    pub(crate) when: &'static [&'static [Argument]],
    pub(crate) occasion: Occasion,
}

impl Permit {
    /// It is made only by a daemon that has capabilities.
    #[must_use]
    pub const fn privileged(self) -> Permit {
        Permit {
            occasion: Occasion::Privileged,
            ..self
        }
    }

    /// No exercise of the device need show the call. `why` says when it is made all the same.
    #[must_use]
    pub const fn rarely(self, why: &'static str) -> Permit {
        Permit {
            occasion: Occasion::Rarely(why),
            ..self
        }
    }
}

impl SystemCall {
    /// Allows it with any arguments.
    #[must_use]
    pub const fn any(self) -> Permit {
        self.when_any_of(&[])
    }

    /// Allows it with arguments that pass all checks of one of the lists in `when`, of which there is at least one.
    #[must_use]
    pub const fn when(self, when: &'static [&'static [Argument]]) -> Permit {
        assert!(!when.is_empty(), "no arguments would pass");
        self.when_any_of(when)
    }

    const fn when_any_of(self, when: &'static [&'static [Argument]]) -> Permit {
        Permit {
            call: self,
            when,
            occasion: Occasion::Usual,
        }
    }
}
