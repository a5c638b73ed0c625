//! Runs a program under ptrace and passes on every system call that it enters, failed or not, and every thread that it starts. Needs no
//! privilege.

use std::collections::BTreeMap;
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

/// What a thread of a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It makes a system call.
    Enters(Call),
    /// It has started another, which has not run its first instruction yet.
    Starts {
        /// The thread.
        thread: i32,
        /// The one that it has started.
        started: i32,
    },
}

/// What is known of a new thread. Its own first stop and the event of its starter come in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum New {
    /// It waits until its starter's event has come.
    Stopped,
    /// Its first stop is yet to come.
    Announced,
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
    pub fn run(self, mut seen: impl FnMut(Event)) -> Result<u8, Error> {
        // `None`: it runs.
        let mut threads: BTreeMap<i32, Option<New>> = BTreeMap::new();
        loop {
            let (thread, stop) = sys::wait().map_err(system("wait for the program"))?;
            let known = threads.get(&thread).copied();
            match stop {
                Stop::Ended(status) if thread == self.process => return Ok(status),
                Stop::Ended(_) => {
                    threads.remove(&thread);
                    continue;
                }
                // Its first stop, at execve(2).
                Stop::Signal(libc::SIGTRAP) if known.is_none() && thread == self.process => {
                    sys::follow_threads(thread).map_err(system("trace the threads of the program"))?;
                    threads.insert(thread, None);
                }
                // So every new thread begins.
                Stop::Signal(libc::SIGSTOP) if known == Some(Some(New::Announced)) => {
                    threads.insert(thread, None);
                }
                Stop::Signal(libc::SIGSTOP) if known.is_none() => {
                    threads.insert(thread, Some(New::Stopped));
                    continue;
                }
                Stop::Signal(signal) => {
                    sys::resume(thread, signal);
                    continue;
                }
                Stop::Syscall => {
                    if let Some(sys::Info::Entry(call)) = sys::syscall_info(thread) {
                        seen(Event::Enters(Call {
                            thread,
                            number: call.number,
                            arguments: call.arguments,
                        }));
                    }
                }
                Stop::Born(started) => {
                    seen(Event::Starts { thread, started });
                    if threads.remove(&started) == Some(Some(New::Stopped)) {
                        threads.insert(started, None);
                        sys::resume(started, 0);
                    } else {
                        threads.insert(started, Some(New::Announced));
                    }
                }
                Stop::Group | Stop::Executed(_) | Stop::Ending(_) | Stop::Event => {}
            }
            sys::resume(thread, 0);
        }
    }
}
