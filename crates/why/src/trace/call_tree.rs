//! The functions that one system call ran through, as a tree.

use crate::kernel::btf::Returns;

/// No call of a real kernel is as deep, and a recording that is not one must not exhaust the stack.
const DEPTH_MAX: usize = 512;
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
}

/// Whether this function is none that the call ran, but one of an interrupt in its midst.
pub(crate) fn is_interrupt(function: &str) -> bool {
    INTERRUPTS.iter().any(|beginning| function.starts_with(beginning))
}

/// The errno as a return register of 64 bits holds it.
pub(crate) fn register_of(errno: i32) -> u64 {
    i64::from(-errno).cast_unsigned()
}
