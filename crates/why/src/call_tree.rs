//! The functions that one system call ran through, and which of them made its errno.

use crate::kernel::btf::Returns;

/// `ECHILD`, by which a path walk without locks asks to be done again with them.
const ECHILD: i32 = 10;
/// `ENOSYS`, by which a security module says that a question is not its own.
const ENOSYS: i32 = 38;
/// `ENOIOCTLCMD`, `ENOPARAM` and `EPROBE_DEFER`: answers between kernel functions that no program sees.
const INTERNAL: [i32; 3] = [515, 519, 517];

/// No call of a real kernel is as deep, and a recording that is not one must not exhaust the stack.
const DEPTH_MAX: usize = 512;
/// Functions that say no as a matter of course: a node's number, which is -1 for any; a label that this module has not.
const NO_CHECKS: [&str; 3] = [
    "tsk_fork_get_node",
    "apparmor_socket_getpeersec_dgram",
    "security_socket_getpeersec_dgram",
];
/// Beginnings of the names of functions by which an interrupt runs in whatever call it meets: not the call's own doing.
/// These enter (x86-64, then arm64), the next run what was put off till the interrupt's end or another thread, then come
/// return probes and messages for the kernel's log, which try many things.
const INTERRUPTS: [&str; 17] = [
    "__sysvec_",
    "sysvec_",
    "__common_interrupt",
    "common_interrupt",
    "default_do_nmi",
    "nmi_handle",
    "el1_interrupt",
    "irq_enter_rcu",
    "irq_exit_rcu",
    "handle_softirqs",
    "__do_softirq",
    "preempt_schedule",
    "kprobe_ftrace_handler",
    "rethook_",
    "kretprobe_",
    "vprintk",
    "_printk",
];

/// What a tracer saw of one thread, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A function was entered.
    Entry {
        /// When, in the trace clock's unit.
        time: u64,
        /// Its name.
        function: String,
        /// How many traced functions are around it.
        depth: usize,
    },
    /// A function returned.
    Exit {
        /// When, in the trace clock's unit.
        time: u64,
        /// Its name.
        function: String,
        /// As at its entry.
        depth: usize,
        /// What it returned, where that is known.
        value: Option<Value>,
    },
    /// Events were lost here.
    Lost,
}

/// What a function returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The return register; none if it held no errno and the kernel was told to write down errnos alone.
    pub register: Option<u64>,
    /// What it means.
    pub returns: Returns,
}

/// One function's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the function.
    pub function: String,
    /// When it was entered and left; it was not seen to return if there is no end.
    pub time: (u64, Option<u64>),
    /// What it returned, where that is known.
    pub value: Option<Value>,
    /// What it called, in order.
    pub children: Vec<Call>,
}

impl Call {
    /// The errno that it returned.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let value = self.value?;
        value.returns.errno(value.register?)
    }

    /// Whether it may have handed on this errno. A number that is no errno by its type, or has none that is known, is one if it
    /// fits to the last bit.
    pub(crate) fn hands_on(&self, errno: i32) -> bool {
        let exact = |value: Value| {
            let wide = value.register == Some(register_of(errno));
            let narrow = value.register == Some(register_of(errno) & u64::from(u32::MAX));
            match value.returns {
                Returns::Unsigned => wide,
                Returns::Ambiguous => wide || narrow,
                _ => false,
            }
        };
        self.errno() == Some(errno) || self.value.is_some_and(exact)
    }

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

/// The calls of one system call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The outermost functions, in order.
    pub roots: Vec<Call>,
    /// Whether nothing was lost and every entry has its return.
    pub complete: bool,
}

impl Tree {
    /// Builds the tree. Whatever does not fit together makes it incomplete.
    #[must_use]
    pub fn build(events: impl IntoIterator<Item = Event>) -> Self {
        let mut tree = Self {
            roots: Vec::new(),
            complete: true,
        };
        let mut open: Vec<Call> = Vec::new();
        let mut interrupt: Option<(String, usize)> = None;
        for event in events {
            if let Some((handler, at)) = &interrupt {
                match &event {
                    Event::Exit { function, depth, .. } if depth == at && function == handler => interrupt = None,
                    Event::Entry { depth, .. } if depth <= at => {
                        tree.complete = false;
                        interrupt = None;
                    }
                    Event::Lost => tree.complete = false,
                    Event::Entry { .. } | Event::Exit { .. } => {}
                }
                continue;
            }
            match event {
                Event::Lost => tree.complete = false,
                Event::Entry { function, depth, .. } if is_interrupt(&function) => interrupt = Some((function, depth)),
                Event::Entry { .. } if open.len() == DEPTH_MAX => tree.complete = false,
                Event::Entry { time, function, depth } => {
                    tree.complete &= depth == open.len();
                    while open.len() > depth {
                        tree.close(&mut open);
                    }
                    open.push(Call {
                        function,
                        time: (time, None),
                        value: None,
                        children: Vec::new(),
                    });
                }
                Event::Exit {
                    time,
                    function,
                    depth,
                    value,
                } => {
                    let known = open.iter().rposition(|call| call.function == function);
                    let Some(at) = known else {
                        tree.complete = false;
                        continue;
                    };
                    tree.complete &= at == depth && at + 1 == open.len();
                    while open.len() > at + 1 {
                        tree.close(&mut open);
                    }
                    if let Some(call) = open.last_mut() {
                        call.time.1 = Some(time);
                        call.value = value;
                    }
                    tree.close(&mut open);
                }
            }
        }
        tree.complete &= open.is_empty() && interrupt.is_none();
        while !open.is_empty() {
            tree.close(&mut open);
        }
        tree
    }

    fn close(&mut self, open: &mut Vec<Call>) {
        let Some(call) = open.pop() else { return };
        match open.last_mut() {
            Some(parent) => parent.children.push(call),
            None => self.roots.push(call),
        }
    }

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

/// How far an answer is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Every return was seen, and no other function can have made the errno.
    Certain,
    /// It fits all that was seen.
    Likely,
    /// Something was lost, so that another function may have made it.
    Unknown,
}

impl Certainty {
    /// The same, where something speaks against its being certain.
    #[must_use]
    pub fn unproved(self) -> Self {
        match self {
            Self::Certain => Self::Likely,
            lower => lower,
        }
    }
}

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

/// Whether this function is none that the call ran, but one of an interrupt in its midst.
pub(crate) fn is_interrupt(function: &str) -> bool {
    INTERRUPTS.iter().any(|beginning| function.starts_with(beginning))
}

/// The last call with this errno: an earlier one was tried again.
fn last_with(calls: &[Call], errno: i32) -> Option<&Call> {
    calls.iter().rev().find(|call| call.hands_on(errno))
}

/// The errno as a return register of 64 bits holds it.
fn register_of(errno: i32) -> u64 {
    i64::from(-errno).cast_unsigned()
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
