//! A failed call without any further observation.

use why::context::Context;
use why::ptrace::{AUDIT_X86_64, Failure, Outcome};

pub(crate) fn failure(thread: i32, number: u64, call: &str, errno: i32) -> Failure {
    Failure {
        thread,
        program: None,
        number,
        architecture: AUDIT_X86_64,
        call: call.to_owned(),
        arguments: Vec::new(),
        outcome: Outcome::Errno(errno),
        filtered: false,
        inferred: false,
        dropped_before: 0,
        searching: false,
        context: Context::default(),
        log: Vec::new(),
    }
}
