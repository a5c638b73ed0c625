//! Checks of a system call's arguments.

use std::fmt;

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

/// A check of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// From 0 to 5.
    index: u8,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// The kernel reads 32 bits, and so does the check.
    Is(u32),
    Bits {
        mask: u64,
        value: u64,
    },
    OwnProcess,
}

/// The index of the last argument.
const LAST: u8 = 5;

impl Argument {
    /// The lower 32 bits of argument `index` are `value`: right for an argument that the kernel takes as `int` or `unsigned int`,
    /// of which it ignores the rest.
    #[must_use]
    pub const fn is(index: u8, value: u32) -> Argument {
        Argument::new(index, Test::Is(value))
    }

    /// Of the bits in `mask`, argument `index` has those in `value` and no other.
    #[must_use]
    pub const fn bits(index: u8, mask: u64, value: u64) -> Argument {
        Argument::new(index, Test::Bits { mask, value })
    }

    /// Argument `index` has none of `bits`.
    #[must_use]
    pub const fn without(index: u8, bits: u64) -> Argument {
        Argument::bits(index, bits, 0)
    }

    /// The lower 32 bits of argument `index` are some of `bits` and no other, see [`Argument::is`].
    #[must_use]
    pub const fn only(index: u8, bits: u32) -> Argument {
        Argument::bits(index, !bits as u64, 0)
    }

    /// Argument `index` is the identifier of the process that builds the filter.
    #[must_use]
    pub const fn own_process(index: u8) -> Argument {
        Argument::new(index, Test::OwnProcess)
    }

    const fn new(index: u8, test: Test) -> Argument {
        assert!(index <= LAST, "a system call has six arguments");
        Argument { index, test }
    }

    /// Whether a call with these arguments passes in `process`.
    pub(crate) fn holds(self, arguments: &[u64; 6], process: u32) -> bool {
        let argument = arguments[usize::from(self.index)];
        let low = argument & u64::from(u32::MAX);
        match self.test {
            Test::Is(value) => low == value.into(),
            Test::Bits { mask, value } => argument & mask == value,
            Test::OwnProcess => low == process.into(),
        }
    }

    pub(crate) fn condition(self, process: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
        use SeccompCmpArgLen::{Dword, Qword};
        let (width, operator, value) = match self.test {
            Test::Is(value) => (Dword, SeccompCmpOp::Eq, value.into()),
            Test::Bits { mask, value } => (Qword, SeccompCmpOp::MaskedEq(mask), value),
            Test::OwnProcess => (Dword, SeccompCmpOp::Eq, process.into()),
        };
        SeccompCondition::new(self.index, width, operator, value)
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.index + 1;
        match self.test {
            Test::Is(value) => write!(f, "argument {number} = {value:#x}"),
            Test::Bits { mask, value: 0 } => write!(f, "argument {number} without {mask:#x}"),
            Test::Bits { mask, value } => write!(f, "argument {number} & {mask:#x} = {value:#x}"),
            Test::OwnProcess => write!(f, "argument {number} = this process"),
        }
    }
}
