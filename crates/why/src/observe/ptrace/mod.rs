//! Runs a command under ptrace, or attaches to a process, and collects the failed system calls; or runs a program and passes on all
//! of its calls and threads. Needs no privilege.

mod arguments;
mod attach;
mod calls;
mod error;
mod failures;
mod refusal;
mod report;
mod rights;
mod run;
mod sys;
mod thread_calls;
mod tracer;
mod wake;
mod watch;

pub use super::failure::{AUDIT_X86_64, Failure, Outcome};
pub use attach::{Process, attach};
pub use calls::{Call, Event, Program};
pub use error::Error;
pub use refusal::{Refusal, leader};
pub use report::{NotRun, Report};
pub use run::{run, run_watched};
pub use watch::Watch;
