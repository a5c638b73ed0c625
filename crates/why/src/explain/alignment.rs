//! Names the function that made an errno from the graph alone, where return values are unknown.
//!
//! A failed call takes the path of successful calls up to some point, and then turns back: it frees, puts and unlocks
//! what it had taken. The last function before that point is the landmark. Either the landmark failed, or its caller
//! did after it. Three facts decide between them: runs of the same functions in calls that succeeded, the return
//! types of functions, and which function's code loads this errno. No answer found in this way is certain.

use std::collections::BTreeMap;

use super::loading::Loading;
use super::remote::asks;
use crate::kernel::btf::{Functions, Returns};
use crate::trace::{Call, Syscall, Value};

#[rustfmt::skip] // A list of words.
/// Words of names of functions that take back what others did, or that run on every way out.
const GOING_BACK: [&str; 41] = [
    "abort", "cancel", "clean", "cleanup", "clear", "close", "dec", "del", "destroy", "detach", "dput", "drop", "end",
    "exit", "finish", "fini", "flush", "fput", "free", "iput", "kfree", "kvfree", "leave", "lock", "mntput", "put",
    "putname", "release", "remove", "restore", "revert", "terminate", "unaccount", "uncharge", "undo", "unlock", "unmap",
    "unpin", "unregister", "up", "wake",
];
#[rustfmt::skip] // A list of words.
/// Words of names of functions that do other things each time, whatever becomes of the call: they wait, or find memory.
const BY_CHANCE: [&str; 16] = [
    "alloc", "charge", "fault", "irq", "kmalloc", "lock", "mutex", "rcu", "resched", "schedule", "slab", "spin", "timer",
    "wait", "wake", "zalloc",
];
/// The step of a path's walk that finds a name missing, and `ENOENT`, which it then makes.
const STEP: &str = "step_into";
const ENOENT: i32 = 2;
/// Runs of one function in calls that succeeded that are compared with one that failed.
const COMPARED: usize = 64;

/// Where a call that failed turned back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The functions around the one that made the errno, outermost first, and that one.
    pub chain: Vec<String>,
    /// The last thing that it did before it went back.
    pub landmark: Option<String>,
    /// What runs that succeed do next.
    pub missing: Option<String>,
    /// What it did in place of that.
    pub unwinding: Option<String>,
    /// A function that had just asked somebody else for the name that then was found missing.
    pub asked: Option<String>,
}

/// What is known of the kernel's functions besides how they ran.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// What they return.
    pub functions: &'k Functions,
    /// Those whose code loads an errno; none if no code could be read.
    pub loading: Option<&'k Loading>,
}

/// Runs of functions in calls that succeeded, by name.
#[derive(Debug, Default)]
pub struct Successes<'s> {
    by_function: BTreeMap<&'s str, Vec<&'s Call>>,
}

impl<'s> Successes<'s> {
    /// Of these calls, those that did not fail.
    #[must_use]
    pub fn of(syscalls: &'s [Syscall]) -> Self {
        let mut successes = Self::default();
        let succeeded = syscalls
            .iter()
            .filter(|syscall| !syscall.failed() && syscall.tree.complete);
        for syscall in succeeded {
            syscall.tree.roots.iter().for_each(|call| successes.add(call));
        }
        successes
    }

    fn add(&mut self, call: &'s Call) {
        let runs = self.by_function.entry(&call.function).or_default();
        if runs.len() < COMPARED {
            runs.push(call);
        }
        call.children.iter().for_each(|child| self.add(child));
    }

    fn runs(&self, function: &str) -> &[&'s Call] {
        self.by_function.get(function).map_or(&[], Vec::as_slice)
    }
}

/// Finds where a call turned back.
#[must_use]
pub fn turn(roots: &[Call], errno: i32, known: Known<'_>, successes: &Successes<'_>) -> Option<Turn> {
    let search = Search {
        errno,
        known,
        successes,
    };
    let mut chain = vec![
        roots
            .iter()
            .rev()
            .find(|root| known.functions.may_fail(&root.function))?,
    ];
    while let Some(next) = chain.last().and_then(|call| search.failed_inside(call)) {
        chain.push(next);
    }
    let origin = chain.last()?;
    let way = search.way(origin);
    let name = |call: &&Call| call.function.clone();
    Some(Turn {
        landmark: way.forward.last().map(name),
        missing: way.missing,
        unwinding: way.back.first().map(name),
        asked: asked(&chain, errno).map(str::to_owned),
        chain: chain.iter().map(name).collect(),
    })
}

/// Who was asked right before a step of a walk found its name missing: the answer was that it is not there.
fn asked<'c>(chain: &[&'c Call], errno: i32) -> Option<&'c str> {
    fn last_asked(call: &Call) -> Option<&str> {
        if asks(&call.function) {
            return Some(&call.function);
        }
        call.children.iter().rev().find_map(last_asked)
    }
    let [.., walk, step] = chain else { return None };
    if errno != ENOENT || step.function != STEP {
        return None;
    }
    let at = walk.children.iter().position(|child| std::ptr::eq(child, *step))?;
    last_asked(walk.children[..at].iter().rfind(|call| !goes_back(&call.function))?)
}

/// Functions inside of this one down to one that made the errno, although it was not seen to return it: where this one has
/// no instruction that loads it, a probe may have missed that return.
#[must_use]
pub fn missed<'c>(call: &'c Call, errno: i32, known: Known<'_>) -> Vec<&'c Call> {
    let search = Search {
        errno,
        known,
        successes: &Successes::default(),
    };
    let mut chain = Vec::new();
    let mut outer = call;
    while search.loads(&outer.function) == Some(false)
        && let Some(next) = search.way(outer).forward.last().copied()
        && known.functions.may_fail(&next.function)
    {
        chain.push(next);
        outer = next;
    }
    if search.loads(&outer.function) == Some(true) {
        chain
    } else {
        Vec::new()
    }
}

/// Whether a function inside of this one, which was not seen to return anything, can have made the errno all the same: a probe
/// may miss a return, and there are other ways to hand an errno over, such as an argument.
#[must_use]
pub fn may_be_made_inside(call: &Call, errno: i32, known: Known<'_>) -> bool {
    let perhaps = |name: &str| {
        let pair = (name.to_owned(), errno);
        known.loading.is_none_or(|loading| {
            let mut sets = [&loading.plainly, &loading.perhaps, &loading.elsewhere].into_iter();
            sets.any(|set| set.contains(&pair))
        })
    };
    let makes = |name: &str| perhaps(name) || asks(name);
    call.children.iter().any(|child| {
        // Who returns no object left the errno elsewhere; who returns a number has said what it has to say.
        let is_number =
            |value: Value| value.register.is_some() && matches!(value.returns, Returns::Int | Returns::Long);
        let seen = child.errno().is_some() || child.value.is_some_and(is_number);
        known.functions.may_fail(&child.function)
            && (!seen && makes(&child.function) || may_be_made_inside(child, errno, known))
    })
}

struct Search<'a> {
    errno: i32,
    known: Known<'a>,
    successes: &'a Successes<'a>,
}

/// What a function called: on its way forward, and on its way back.
struct Way<'c> {
    forward: Vec<&'c Call>,
    back: Vec<&'c Call>,
    missing: Option<String>,
}

impl Search<'_> {
    /// The callee that made this function fail, if it was not the function itself.
    fn failed_inside<'c>(&self, call: &'c Call) -> Option<&'c Call> {
        let way = self.way(call);
        let last = way.forward.last().copied();
        let made_here = self.loads(&call.function);
        if let Some(last) = last
            && self.can_make(last)
            && !(made_here != Some(false) && self.ran_as_in_success(last))
        {
            return Some(last);
        }
        if made_here != Some(false) {
            return None;
        }
        // It hands on what another one made: the last that can have, although it went on for a while.
        let mut called = call.children.iter().rev();
        called.find(|child| self.can_make(child) && !self.ran_as_in_success(child))
    }

    /// Splits what a function called.
    fn way<'c>(&self, call: &'c Call) -> Way<'c> {
        let children: Vec<&Call> = call.children.iter().collect();
        let runs = self.successes.runs(&call.function);
        // What is done in the end whatever came before is no way forward.
        let common = |run: &&Call| {
            let pairs = children.iter().rev().zip(run.children.iter().rev());
            pairs
                .take_while(|(ours, theirs)| ours.function == theirs.function && shape(ours) == shape(theirs))
                .count()
        };
        let longer = runs.iter().filter(|run| run.children.len() > children.len());
        let in_the_end = longer.map(common).max().unwrap_or(0);
        let mut end = children.len() - in_the_end;
        while end > 0 && goes_back(&children[end - 1].function) {
            end -= 1;
        }
        let (forward, back) = children.split_at(end);
        Way {
            missing: self.missing(call, forward),
            forward: forward.to_vec(),
            back: back.to_vec(),
        }
    }

    /// What a run that goes as far as this one does next.
    fn missing(&self, call: &Call, forward: &[&Call]) -> Option<String> {
        let ours: Vec<&str> = forward.iter().map(|call| call.function.as_str()).collect();
        let runs = self.successes.runs(&call.function).iter();
        let next = runs.filter_map(|run| {
            let theirs: Vec<&str> = run.children.iter().map(|call| call.function.as_str()).collect();
            let next = theirs.strip_prefix(ours.as_slice())?.first().copied()?;
            (!goes_back(next)).then_some(next)
        });
        next.max_by_key(|name| name.len()).map(str::to_owned)
    }

    /// Whether this function, or one that it called, can have made the errno and handed it to the caller.
    fn can_make(&self, call: &Call) -> bool {
        self.known.functions.may_fail(&call.function)
            && (self.loads(&call.function) != Some(false)
                || asks(&call.function)
                || call.children.iter().any(|child| self.can_make(child)))
    }

    /// Whether the function's code loads this errno, if its code was read.
    fn loads(&self, function: &str) -> Option<bool> {
        let loading = self.known.loading?;
        Some(loading.plainly.contains(&(function.to_owned(), self.errno)))
    }

    /// Whether a run of this function in a call that succeeded called the same functions. That tells nothing if it ended in
    /// one that calls none and may have made the errno, or in one that asked somebody else.
    fn ran_as_in_success(&self, call: &Call) -> bool {
        let mut last = call;
        while let Some(next) = last.children.iter().rfind(|child| !goes_back(&child.function)) {
            if asks(&last.function) {
                return false;
            }
            last = next;
        }
        let undecided = self.known.functions.may_fail(&last.function) && self.loads(&last.function) != Some(false);
        let ours = shape(call);
        let mut runs = self.successes.runs(&call.function).iter();
        !undecided && runs.any(|run| shape(run) == ours)
    }
}

/// The functions that ran, with repetitions as one: a loop may go round as often as it likes.
fn shape(call: &Call) -> Vec<(usize, &str)> {
    fn add<'c>(call: &'c Call, depth: usize, all: &mut Vec<(usize, &'c str)>) {
        for child in call.children.iter().filter(|child| !has(&child.function, &BY_CHANCE)) {
            if all.last() != Some(&(depth, child.function.as_str())) {
                all.push((depth, &child.function));
            }
            add(child, depth + 1, all);
        }
    }
    let mut all = Vec::new();
    add(call, 0, &mut all);
    all
}

fn goes_back(function: &str) -> bool {
    has(function, &GOING_BACK)
}

/// Whether one of these words is in the function's name.
fn has(function: &str, words: &[&str]) -> bool {
    let base = function.split('.').next().unwrap_or_default();
    base.split('_').any(|word| words.contains(&word))
}
