//! The outcome of a thread's calls: the result alone does not always show it, but later events do.

use super::sys::{Exit, Place, Syscall};
use crate::observe::failure::AUDIT_X86_64;

/// `ERESTARTSYS` and its kin: the kernel makes the call again, unless a handler of the signal that interrupted it runs. Then
/// the program may see EINTR, once the handler is done.
const RESTARTS: std::ops::RangeInclusive<i64> = 512..=516;
/// Interrupted calls that are remembered; handlers need not return.
const INTERRUPTED: usize = 64;
/// `rt_sigreturn`, also that of x32, and for 32-bit programs `sigreturn` and `rt_sigreturn`.
const RETURNS_FROM_HANDLERS: [u64; 2] = [15, 0x4000_0201];
const RETURNS_FROM_HANDLERS_32: [u64; 2] = [119, 173];

/// What is known of the calls of a thread.
#[derive(Default)]
pub(super) struct ThreadCalls {
    /// The one that it is in.
    inside: Option<Syscall>,
    /// The one that it left last, until it enters another.
    last: Option<Last>,
    /// Those that signals interrupted, and that were neither made again yet nor given up.
    interrupted: Vec<Syscall>,
}

/// A call and its result.
pub(super) struct Last {
    pub(super) call: Syscall,
    value: i64,
}

/// How a call ended.
pub(super) enum End {
    /// With this errno; it is not known which it was if tracing began in its middle.
    Failed(Option<Syscall>, i32),
    /// This one, interrupted before, has failed with EINTR now.
    Interrupted(Syscall),
    /// It succeeded, or that is still to be seen.
    Other,
}

impl ThreadCalls {
    pub(super) fn entered(&mut self, call: Syscall) {
        // It is made again; what was interrupted in a handler on top of it is gone with that.
        self.forget_from(call.place);
        self.last = None;
        self.inside = Some(call);
    }

    pub(super) fn left(&mut self, exit: &Exit) -> End {
        let call = self.inside.take();
        self.last = call.map(|call| Last {
            call,
            value: exit.value,
        });
        let errno = exit.value.wrapping_neg();
        match call {
            // It puts back what the registers held before the handler, which is no result of its own.
            Some(call) if returns_from_handler(call) => {
                let interrupted = self.forget_from(exit.place);
                let failed = exit.error && errno == i64::from(libc::EINTR);
                interrupted.filter(|_| failed).map_or(End::Other, End::Interrupted)
            }
            Some(call) if exit.error && RESTARTS.contains(&errno) => {
                if self.interrupted.len() == INTERRUPTED {
                    self.interrupted.remove(0);
                }
                self.interrupted.push(call);
                End::Other
            }
            call if exit.error && !RESTARTS.contains(&errno) => {
                End::Failed(call, i32::try_from(errno).unwrap_or(i32::MAX))
            }
            _ => End::Other,
        }
    }

    pub(super) fn take_last(&mut self) -> Option<Last> {
        self.last.take()
    }

    /// The thread executes another program now, which has no handlers to return from.
    pub(super) fn executed(&mut self) {
        self.interrupted.clear();
    }

    /// The call for which a filter ends the thread: it never left that, or did so as if it was refused.
    pub(super) fn deadly(&self) -> Option<Syscall> {
        self.inside.or_else(|| Some(self.last.as_ref()?.call))
    }

    /// Forgets what was interrupted at this place, and since; gives the former.
    fn forget_from(&mut self, place: Place) -> Option<Syscall> {
        let at = self.interrupted.iter().rposition(|call| call.place == place)?;
        self.interrupted.drain(at..).next()
    }
}

impl Last {
    /// Whether it looks as after a filter's refusal: the kernel puts the number back to where the result would be.
    pub(super) fn is_refused(&self) -> bool {
        self.value.cast_unsigned() == self.call.number
    }
}

fn returns_from_handler(call: Syscall) -> bool {
    let numbers = if call.architecture == AUDIT_X86_64 {
        RETURNS_FROM_HANDLERS
    } else {
        RETURNS_FROM_HANDLERS_32
    };
    numbers.contains(&call.number)
}
