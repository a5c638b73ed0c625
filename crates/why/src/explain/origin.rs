//! Names the function that made the errno, for each failed call.

use std::collections::BTreeMap;

use super::alignment::{self, Known, Successes, Turn};
use super::cause::Cause;
use super::certainty::Certainty;
use super::remote::remote;
use super::request::{self, Refused};
use crate::observe::failure::{Failure, Outcome};
use crate::trace::{Call, Syscall};

/// `ENOSYS`, which the system call table answers by itself.
const ENOSYS: i32 = 38;

/// What made an errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Functions that handed the errno on, outermost first; the last one is the innermost that returned it without a break.
    pub chain: Vec<String>,
    /// The function that made it.
    pub origin: Origin,
    /// What the origin had been told before, if it did not decide by itself.
    pub check: Option<Check>,
    /// What was refused, if the origin asked a FUSE server.
    pub request: Option<Refused>,
    /// Where the call turned back, if that is all that the answer rests on.
    pub turn: Option<Turn>,
    /// How far this is to be trusted.
    pub certainty: Certainty,
}

/// Where an errno was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In this function of the kernel.
    Function(String),
    /// By somebody whom this function asked.
    Remote {
        /// The function.
        function: String,
        /// Who was asked.
        asked: &'static str,
    },
    /// Before the call's own function was entered: a seccomp filter.
    Filter,
    /// The kernel has no such call.
    NoCall,
}

impl Origin {
    /// The kernel function, as a test or a table names it.
    #[must_use]
    pub fn function(&self) -> &str {
        match self {
            Self::Function(function) | Self::Remote { function, .. } => function,
            Self::Filter => "__seccomp_filter",
            Self::NoCall => "do_syscall_64",
        }
    }
}

/// A function that said no before the origin did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub function: String,
    /// The errno that it said, if it said one; else it said false.
    pub errno: Option<i32>,
}

/// Finds to each failure what the kernel's tracer saw of it, and explains that. With the answer comes what was seen.
///
/// `has_returns` says that it is known what functions returned; if not, calls that failed are compared with those that did
/// not.
#[must_use]
pub fn answers<'s>(
    failures: &[Failure],
    syscalls: &'s [Syscall],
    known: Known<'_>,
    has_returns: bool,
) -> Vec<Option<(Answer, &'s Syscall)>> {
    let successes = (!has_returns).then(|| Successes::of(syscalls));
    // Of one thread both list the same calls in the same order; one of the lists may have holes.
    let mut next: BTreeMap<i32, usize> = BTreeMap::new();
    let mut found = Vec::with_capacity(failures.len());
    for failure in failures {
        let errno = match failure.outcome {
            // The kernel's own result of an interrupted call is none that the program sees.
            Outcome::Errno(errno) if !failure.inferred => errno,
            Outcome::Errno(_) | Outcome::Sigsys => {
                found.push(None);
                continue;
            }
        };
        let from = next.get(&failure.thread).copied().unwrap_or(0);
        let mut alike = syscalls.iter().enumerate().skip(from).filter(|(_, syscall)| {
            syscall.thread == failure.thread
                && syscall.number == failure.number
                && syscall.returned == -i64::from(errno)
        });
        let position = alike.nth(failure.dropped_before);
        if position.is_none() && failure.dropped_before > 0 {
            // What comes next may as well be one that was dropped.
            next.insert(failure.thread, syscalls.len());
        }
        found.push(position.and_then(|(position, syscall)| {
            next.insert(failure.thread, position + 1);
            let mut answer = match &successes {
                _ if syscall.tree.roots.is_empty() => refused_before(syscall, errno, failure),
                Some(successes) => turned(syscall, errno, known, successes),
                None => answer(syscall, errno, known),
            }?;
            if syscall.lost {
                answer.certainty = answer.certainty.unproved();
            }
            Some((answer, syscall))
        }));
    }
    found
}

fn answer(syscall: &Syscall, errno: i32, known: Known<'_>) -> Option<Answer> {
    let mut explanation = syscall.tree.explain(errno)?;
    let mut certainty = explanation.certainty;
    let asked = asked_before(&explanation.chain, errno);
    if explanation.cause == Cause::None && asked.is_none() {
        let origin = explanation.chain.last()?;
        let missed = alignment::missed(origin, errno, known);
        if !missed.is_empty() || alignment::may_be_made_inside(origin, errno, known) {
            certainty = certainty.unproved();
        }
        explanation.chain.extend(missed);
    }
    let chain: Vec<_> = explanation.chain.iter().map(|call| call.function.clone()).collect();
    let (made, check) = match explanation.cause {
        Cause::None => match asked {
            Some(call) => {
                certainty = certainty.unproved();
                (call.function.clone(), None)
            }
            None => (chain.last()?.clone(), None),
        },
        Cause::Recreated(call) => (call.function.clone(), None),
        Cause::Translated(call) => {
            let check = Check {
                function: call.function.clone(),
                errno: call.errno(),
            };
            (chain.last()?.clone(), Some(check))
        }
    };
    let asking = explanation
        .chain
        .iter()
        .rev()
        .find_map(|call| Some((call, remote(&call.function)?)));
    let origin = match (remote(&made), asking) {
        (Some(asked), _) => Origin::Remote { function: made, asked },
        // What was asked said so, and functions inside of the asking one handed it on.
        (None, Some((call, asked))) => Origin::Remote {
            function: call.function.clone(),
            asked,
        },
        (None, None) => Origin::Function(made),
    };
    Some(Answer {
        request: request::refused(syscall, origin.function(), errno),
        chain,
        origin,
        check,
        turn: None,
        certainty,
    })
}

/// From where the call turned back, since nobody knows what its functions returned.
fn turned(syscall: &Syscall, errno: i32, known: Known<'_>, successes: &Successes<'_>) -> Option<Answer> {
    let turn = alignment::turn(&syscall.tree.roots, errno, known, successes)?;
    let function = turn.asked.as_ref().or(turn.chain.last())?.clone();
    let mut called = turn.asked.iter().chain(turn.chain.iter().rev());
    let asking = called.find_map(|call| Some((call, remote(call)?)));
    let origin = match asking {
        Some((function, asked)) => Origin::Remote {
            function: function.clone(),
            asked,
        },
        None => Origin::Function(function),
    };
    Some(Answer {
        request: request::refused(syscall, origin.function(), errno),
        chain: turn.chain.clone(),
        origin,
        check: None,
        certainty: if syscall.tree.complete {
            Certainty::Likely
        } else {
            Certainty::Unknown
        },
        turn: Some(turn),
    })
}

/// What was asked of somebody else just before the origin ran, and answered with the same errno: a lookup turns that into
/// a name that is known not to be there, which the next step of the walk (`step_into`) makes into the errno again.
fn asked_before<'t>(chain: &[&'t Call], errno: i32) -> Option<&'t Call> {
    fn asked(call: &Call, errno: i32) -> Option<&Call> {
        if remote(&call.function).is_some() && call.hands_on(errno) {
            return Some(call);
        }
        call.children.iter().rev().find_map(|child| asked(child, errno))
    }
    let [.., parent, origin] = chain else { return None };
    let at = parent.children.iter().position(|child| std::ptr::eq(child, *origin))?;
    parent.children[..at].iter().rev().find_map(|call| asked(call, errno))
}

/// A call that ran through no function: a filter refuses before the kernel says that a call is entered, and a number that has
/// no function is entered and left again.
fn refused_before(syscall: &Syscall, errno: i32, failure: &Failure) -> Option<Answer> {
    let entered = syscall.time.0.is_some();
    let origin = match (entered, errno) {
        (false, _) if failure.filtered => Origin::Filter,
        // The functions of calls of another kind than the kernel's own may not be looked at.
        (true, ENOSYS) if failure.is_native() => Origin::NoCall,
        _ => return None,
    };
    Some(Answer {
        chain: Vec::new(),
        origin,
        check: None,
        request: None,
        turn: None,
        // What was lost may be just what would have been seen.
        certainty: if syscall.tree.complete && !syscall.lost {
            Certainty::Certain
        } else {
            Certainty::Unknown
        },
    })
}
