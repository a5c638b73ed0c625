//! Runs a program under ptrace and passes on every system call that it enters, failed or not. Needs no privilege.

use std::collections::BTreeSet;
use std::process::{ChildStdout, Command};

use super::error::{Error, system};
use super::sys::{self, Stop};

/// A system call that a thread is about to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The thread.
    pub thread: i32,
    /// The number of the call.
    pub number: u64,
    /// Its arguments, with whatever lies in the registers of those that it does not have.
    pub arguments: [u64; 6],
}

/// A program that has not run its first instruction yet. It ends with the thread that started it, at the latest.
#[derive(Debug)]
pub struct Program {
    /// Its process.
    pub process: i32,
    /// Its standard output, if that is a pipe.
    pub stdout: Option<ChildStdout>,
}

impl Program {
    /// Starts `command`. [`Program::run`] must follow on the same thread.
    ///
    /// # Errors
    /// It cannot be executed, or the system does not let it be traced.
    pub fn start(mut command: Command) -> Result<Program, Error> {
        sys::trace_from_the_start(&mut command);
        let mut child = command
            .spawn()
            .map_err(system("start the program under ptrace (is that allowed here?)"))?;
        Ok(Program {
            process: i32::try_from(child.id()).unwrap_or_default(),
            stdout: child.stdout.take(),
        })
    }

    /// Runs it to its end, with all its threads, but without the processes that it starts. Answers the exit status, as a shell has
    /// it.
    ///
    /// # Errors
    /// The system does not let it be traced any more.
    pub fn run(self, mut entered: impl FnMut(Call)) -> Result<u8, Error> {
        let mut threads = BTreeSet::new();
        loop {
            let (thread, stop) = sys::wait().map_err(system("wait for the program"))?;
            let new = threads.insert(thread);
            match stop {
                Stop::Ended(status) if thread == self.process => return Ok(status),
                Stop::Ended(_) => {
                    threads.remove(&thread);
                    continue;
                }
                // Its first stop, at execve(2).
                Stop::Signal(libc::SIGTRAP) if new && thread == self.process => {
                    sys::follow_threads(thread).map_err(system("trace the threads of the program"))?;
                }
                // So every new thread begins.
                Stop::Signal(libc::SIGSTOP) if new => {}
                Stop::Signal(signal) => {
                    sys::resume(thread, signal);
                    continue;
                }
                Stop::Syscall => {
                    if let Some(sys::Info::Entry(call)) = sys::syscall_info(thread) {
                        entered(Call {
                            thread,
                            number: call.number,
                            arguments: call.arguments,
                        });
                    }
                }
                Stop::Group | Stop::Born(_) | Stop::Executed(_) | Stop::Ending(_) | Stop::Event => {}
            }
            sys::resume(thread, 0);
        }
    }
}
