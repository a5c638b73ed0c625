//! The function of a tree that made the errno, and the reason for it.

use super::certainty::Certainty;
use crate::kernel::btf::Returns;
use crate::trace::{Call, Tree, register_of};

/// `ECHILD`, by which a path walk without locks asks to be done again with them.
const ECHILD: i32 = 10;
/// `ENOSYS`, by which a security module says that a question is not its own.
const ENOSYS: i32 = 38;
/// `ENOIOCTLCMD`, `ENOPARAM` and `EPROBE_DEFER`: answers between kernel functions that no program sees.
const INTERNAL: [i32; 3] = [515, 519, 517];

/// Functions that say no as a matter of course: a node's number, which is -1 for any; a label that this module has not.
const NO_CHECKS: [&str; 3] = [
    "tsk_fork_get_node",
    "apparmor_socket_getpeersec_dgram",
    "security_socket_getpeersec_dgram",
];

/// What inside the origin led to the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<'a> {
    /// Nothing that it called failed: the check is its own.
    None,
    /// A call failed with another errno, or a check said no.
    Translated(&'a Call),
    /// A call deeper down failed with the same errno, which a caller in between swallowed.
    Recreated(&'a Call),
}

/// Where an errno came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The functions that handed the errno on, outermost first; the last one is the origin.
    pub chain: Vec<&'a Call>,
    /// What inside the origin led to it.
    pub cause: Cause<'a>,
    /// How far this is to be trusted.
    pub certainty: Certainty,
}

impl Tree {
    /// Which function made the errno that the system call returned, and from what.
    #[must_use]
    pub fn explain(&self, errno: i32) -> Option<Explanation<'_>> {
        let mut chain = vec![last_with(&self.roots, errno)?];
        while let Some(next) = chain.last().and_then(|call| last_with(&call.children, errno)) {
            chain.push(next);
        }
        let origin = chain.last()?;
        let cause = cause(&origin.children, errno);
        let certainty = if !self.complete || chain.iter().any(|call| call.time.1.is_none()) {
            Certainty::Unknown
        } else if matches!(cause, Cause::None)
            && chain.iter().all(|call| call.is_typed())
            && !origin.children.iter().any(|call| call.may_hide(errno))
        {
            Certainty::Certain
        } else {
            // That one thing failed before another does not prove that it is the reason.
            Certainty::Likely
        };
        Some(Explanation {
            chain,
            cause,
            certainty,
        })
    }
}

impl Call {
    /// Whether it is a truth value, which hands nothing on.
    fn is_truth(&self) -> bool {
        self.value.is_some_and(|value| value.returns == Returns::Bool)
    }

    /// Whether it is a check that said no.
    fn refused(&self) -> bool {
        let said = self.value.and_then(|value| value.register);
        self.is_truth() && said.is_some_and(|register| register & 0xff == 0)
    }

    fn benign(&self, wanted: i32) -> bool {
        // What the hooks of BPF return unless a program is attached.
        if self.function.starts_with("bpf_lsm_") || NO_CHECKS.contains(&self.function.as_str()) {
            return true;
        }
        self.errno()
            .is_some_and(|errno| INTERNAL.contains(&errno) || [ECHILD, ENOSYS].contains(&errno) && wanted != errno)
    }

    /// Whether nothing that is known of it speaks against its having made this errno unseen.
    fn may_hide(&self, errno: i32) -> bool {
        let Some(value) = self.value else { return true };
        let low = |register: u64| register & 0xffff_ffff == register_of(errno) & 0xffff_ffff;
        value.returns == Returns::Other && value.register.is_some_and(low)
    }

    fn is_typed(&self) -> bool {
        self.value.is_some_and(|value| value.returns != Returns::Ambiguous)
    }
}

/// The last call with this errno: an earlier one was tried again.
fn last_with(calls: &[Call], errno: i32) -> Option<&Call> {
    calls.iter().rev().find(|call| call.hands_on(errno))
}

/// The innermost failure of the last child that has one.
fn cause(children: &[Call], errno: i32) -> Cause<'_> {
    for child in children.iter().rev() {
        let inner = cause(&child.children, errno);
        match inner {
            // A truth value carries no errno: who asked for it made an errno of its own.
            Cause::Recreated(call) if child.is_truth() => return Cause::Translated(call),
            Cause::Recreated(_) => return inner,
            Cause::Translated(_) | Cause::None => {}
        }
        if child.errno() == Some(errno) {
            return Cause::Recreated(child);
        }
        let failed = child.errno().is_some() && !child.benign(errno) || child.refused();
        let silent = child.is_truth() && child.value.is_some_and(|value| value.register.is_none());
        match inner {
            // The innermost one says most: the capability, not the helper that asked for it.
            Cause::Translated(_) if failed || silent => return inner,
            _ if failed => return Cause::Translated(child),
            _ => {}
        }
    }
    Cause::None
}
