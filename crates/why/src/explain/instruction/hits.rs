//! The probed instructions that one run of a function reached.

use crate::explain::origin::{Answer, Origin};
use crate::trace::{Call, Syscall};

/// The run of the function that made the errno of a call, and the errno.
pub(super) fn making<'c>(syscall: &'c Syscall, answer: &Answer) -> Option<(&'c Call, i32)> {
    let errno = i32::try_from(-syscall.returned).ok()?;
    let Origin::Function(function) = &answer.origin else {
        return None;
    };
    let mut run = None;
    last_run(&syscall.tree.roots, function, errno, &mut run);
    Some((run?, errno))
}

/// The last run of a function that ended with this errno.
fn last_run<'c>(calls: &'c [Call], function: &str, errno: i32, found: &mut Option<&'c Call>) {
    for call in calls {
        last_run(&call.children, function, errno, found);
        if call.function == function && call.hands_on(errno) {
            *found = Some(call);
        }
    }
}

/// The addresses hit in one run of a function, in order, without those of its runs inside.
pub(super) fn hits(run: &Call, hits: &[(u64, u64)]) -> Vec<u64> {
    fn inner(run: &Call, function: &str, windows: &mut Vec<(u64, u64)>) {
        for child in &run.children {
            if child.function == function {
                windows.push((child.time.0, child.time.1.unwrap_or(u64::MAX)));
            } else {
                inner(child, function, windows);
            }
        }
    }
    let mut windows = Vec::new();
    inner(run, &run.function, &mut windows);
    let within = |time: u64, (from, to): (u64, u64)| (from..=to).contains(&time);
    let of_run = hits.iter().filter(|(time, _)| {
        within(*time, (run.time.0, run.time.1.unwrap_or(u64::MAX)))
            && !windows.iter().any(|window| within(*time, *window))
    });
    of_run.map(|(_, address)| *address).collect()
}
