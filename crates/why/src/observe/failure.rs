//! A system call that failed, as it was observed.

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::kernel_log;
use crate::words::errno_name;

/// The audit number of x86-64: calls of other kinds (i386) have other numbers.
pub const AUDIT_X86_64: u32 = 0xc000_003e;

/// A system call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The thread that called.
    pub thread: i32,
    /// The name of its program's file, if it could be read.
    pub program: Option<String>,
    /// Number of the call.
    pub number: u64,
    /// Whose number that is, as audit counts architectures: 32-bit programs have calls of their own.
    #[serde(default = "native")]
    pub architecture: u32,
    /// Name of the call, or its number where there is no name.
    pub call: String,
    /// The arguments as a person would write them.
    pub arguments: Vec<String>,
    /// How it failed.
    pub outcome: Outcome,
    /// Whether a seccomp filter was on this thread, which may have refused the call before any kernel function saw it.
    pub filtered: bool,
    /// Whether that it failed was seen by what came after it alone: nothing in a recording is known to be of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inferred: bool,
    /// Failures of the same call with the same errno, of this thread, that were not kept and lie before this one: a recording
    /// has them all.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropped_before: usize,
    /// Whether it was looked for a program here that then was found elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub searching: bool,
    /// What it was measured against.
    #[serde(default)]
    pub context: Context,
    /// What the kernel logged between the call's entry and its end, whoever that was about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<kernel_log::Line>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

fn native() -> u32 {
    AUDIT_X86_64
}

impl Failure {
    /// Whether it is one of the kernel's own calls, and none of those that it has for 32-bit programs.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.architecture == native()
    }
}

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It returned this errno.
    Errno(i32),
    /// A seccomp filter sent SIGSYS in its place, or ended the thread by that.
    Sigsys,
}

impl Outcome {
    /// The name as in `EACCES`, or the number.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Errno(errno) => errno_name(errno).map_or_else(|| errno.to_string(), str::to_owned),
            Self::Sigsys => "SIGSYS".to_owned(),
        }
    }
}
