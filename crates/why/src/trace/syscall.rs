//! One system call, with all observations of it.

use super::call_tree::Tree;
use super::request::Request;

/// One system call of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// The thread's number in the first process namespace.
    pub thread: i32,
    /// The call's number.
    pub number: u64,
    /// What it returned.
    pub returned: i64,
    /// When it was entered, if that was seen, and when it returned.
    pub time: (Option<u64>, u64),
    /// The functions that it ran through.
    pub tree: Tree,
    /// Whether events were lost, of this call or of another.
    pub lost: bool,
    /// Probed instructions that it ran through: when, and their addresses, in order.
    pub hits: Vec<(u64, u64)>,
    /// What such instructions compared, in order.
    pub got: Vec<Got>,
    /// What it asked of FUSE servers, in order.
    pub requests: Vec<Request>,
}

/// What a probe got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// When.
    pub time: u64,
    /// Where the probe is.
    pub address: u64,
    /// In the order in which it was told to get them.
    pub values: Vec<u64>,
}

impl Syscall {
    /// Whether it returned an errno.
    #[must_use]
    pub fn failed(&self) -> bool {
        is_errno(self.returned)
    }
}

pub(super) fn is_errno(returned: i64) -> bool {
    (-4095..0).contains(&returned)
}
