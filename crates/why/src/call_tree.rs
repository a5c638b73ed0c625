//! The functions that one system call ran through, and which of them made its errno.

use crate::btf::Returns;

/// `ECHILD`, by which a path walk without locks asks to be done again with them.
const ECHILD: i32 = 10;
/// `ENOIOCTLCMD`, `ENOPARAM` and `EPROBE_DEFER`: answers between kernel functions that no program sees.
const INTERNAL: [i32; 3] = [515, 519, 517];

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
        /// The return register and what it means, where both are known.
        value: Option<(u64, Returns)>,
    },
    /// Events were lost here.
    Lost,
}

/// One function's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Name of the function.
    pub function: String,
    /// When it was entered and left; it was not seen to return if there is no end.
    pub time: (u64, Option<u64>),
    /// The return register and what it means, where both are known.
    pub value: Option<(u64, Returns)>,
    /// What it called, in order.
    pub children: Vec<Call>,
}

impl Call {
    /// The errno that it returned.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.value.and_then(|(register, returns)| returns.errno(register))
    }

    /// Whether it is a check that said no.
    fn refused(&self) -> bool {
        self.value
            .is_some_and(|(register, returns)| returns == Returns::Bool && register & 0xff == 0)
    }

    fn benign(&self, wanted: i32) -> bool {
        self.errno()
            .is_some_and(|errno| INTERNAL.contains(&errno) || errno == ECHILD && wanted != ECHILD)
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
        for event in events {
            match event {
                Event::Lost => tree.complete = false,
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
        tree.complete &= open.is_empty();
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
        } else if matches!(cause, Cause::None) && origin.children.iter().all(|call| call.value.is_some()) {
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

/// The last call with this errno: an earlier one was tried again.
fn last_with(calls: &[Call], errno: i32) -> Option<&Call> {
    calls.iter().rev().find(|call| call.errno() == Some(errno))
}

/// The innermost failure of the last child that has one.
fn cause(children: &[Call], errno: i32) -> Cause<'_> {
    for child in children.iter().rev() {
        let inner = cause(&child.children, errno);
        if let Cause::Recreated(_) = inner {
            return inner;
        }
        if child.errno() == Some(errno) {
            return Cause::Recreated(child);
        }
        let failed = child.errno().is_some() && !child.benign(errno) || child.refused();
        match inner {
            // The innermost one says most: the capability, not the helper that asked for it.
            Cause::Translated(_) if failed => return inner,
            _ if failed => return Cause::Translated(child),
            _ => {}
        }
    }
    Cause::None
}
