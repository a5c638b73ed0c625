//! Safe wrappers for the system calls of ptrace.
#![expect(unsafe_code, reason = "fork, ptrace and waitpid have no safe interface")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT;
/// `SYS_SECCOMP`: the code of a SIGSYS that a filter sent.
const SIGSYS_BY_SECCOMP: i32 = 1;

/// A call as it was entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syscall {
    pub(super) architecture: u32,
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
    pub(super) place: Place,
}

/// From where a thread makes a call, and returns to: its instruction and stack pointers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    instruction: u64,
    stack: u64,
}

/// The result of a call.
pub(super) struct Exit {
    pub(super) value: i64,
    pub(super) error: bool,
    pub(super) place: Place,
}

pub(super) enum Info {
    Entry(Syscall),
    Exit(Exit),
}

/// Why a thread stopped.
pub(super) enum Stop {
    Ended(u8),
    Syscall,
    Signal(i32),
    Group,
    /// It has started this thread or process.
    Born(i32),
    /// It executes another program, and had this number before.
    Executed(i32),
    /// It is about to end by this signal, or by itself (0), and its memory is still there.
    Ending(i32),
    Event,
}

/// A child that waits to be told to execute its command.
pub(super) struct Child {
    pub(super) pid: i32,
    go: File,
    failed: File,
}

impl Child {
    pub(super) fn seize(&self) -> io::Result<()> {
        seize(self.pid)
    }

    pub(super) fn execute(&mut self) -> io::Result<()> {
        self.go.write_all(&[1])
    }

    /// The errno for which the command could not be executed; to be asked once the child ended.
    pub(super) fn failure(&mut self) -> Option<i32> {
        let mut errno = [0; 4];
        let read = self.failed.read_exact(&mut errno);
        read.is_ok().then(|| i32::from_ne_bytes(errno))
    }
}

fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else owns it.
    let reader = unsafe { File::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let writer = unsafe { File::from_raw_fd(ends[1]) };
    Ok((reader, writer))
}

/// Starts a child that waits, so that it can be seized before it executes the command. If this process dies first, the
/// child ends.
pub(super) fn fork(words: &[CString]) -> io::Result<Child> {
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let (wait, go) = pipe()?;
    let (failed, fail) = pipe()?;
    let (wait, go_there, fail) = (wait, go.as_raw_fd(), fail);
    // SAFETY: the child calls nothing but async-signal-safe functions until it executes or exits.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => child(wait.as_raw_fd(), go_there, fail.as_raw_fd(), &argv),
        pid => Ok(Child { pid, go, failed }),
    }
}

fn child(wait: i32, go: i32, fail: i32, argv: &[*const libc::c_char]) -> ! {
    let mut byte = 0u8;
    // SAFETY: closes the child's copy, so that the parent's death ends the wait below.
    unsafe { libc::close(go) };
    // Rust ignores SIGPIPE, which a command does not expect.
    // SAFETY: sets a default action.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: `byte` has room for one byte.
    if unsafe { libc::read(wait, (&raw mut byte).cast(), 1) } == 1 {
        // SAFETY: `argv` ends with null and its strings, which end with NUL, live in the parent's memory copied here.
        unsafe { libc::execvp(argv[0], argv.as_ptr()) };
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
    // SAFETY: writes four bytes of `errno`.
    unsafe { libc::write(fail, errno.as_ptr().cast(), errno.len()) };
    // SAFETY: ends the child without running what the parent registered.
    unsafe { libc::_exit(127) }
}

/// Begins to trace a thread, which goes on as it was. Should this process end in whatever way, the thread goes on untraced.
pub(super) fn seize(thread: i32) -> io::Result<()> {
    // SAFETY: PTRACE_SEIZE takes its options by value and touches no memory of ours.
    let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, 0usize, OPTIONS as usize) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the calling thread trace the process of `command` from its first instruction on.
pub(super) fn trace_from_the_start(command: &mut Command) {
    let trace = || {
        // SAFETY: PTRACE_TRACEME takes nothing and touches no memory of ours.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0usize, 0usize) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(trace) };
}

/// Has the threads that a stopped one starts be traced as well, but not the processes. All end with this one.
pub(super) fn follow_threads(thread: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    // SAFETY: PTRACE_SETOPTIONS takes its options by value and touches no memory of ours.
    match unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, thread, 0usize, options as usize) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a traced thread stop, of which `wait` will tell. Whether there is such a thread.
pub(super) fn interrupt(thread: i32) -> bool {
    // SAFETY: PTRACE_INTERRUPT takes nothing and touches no memory of ours.
    unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0usize, 0usize) == 0 }
}

/// Lets a stopped thread go on untraced, with the signal that it was about to get.
pub(super) fn detach(thread: i32, signal: i32) {
    // SAFETY: PTRACE_DETACH takes the signal by value and touches no memory of ours.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0usize, i64::from(signal)) };
}

/// Waits for any thread that this one traces.
pub(super) fn wait() -> io::Result<(i32, Stop)> {
    loop {
        if let Some(stopped) = waited(0)? {
            return Ok(stopped);
        }
    }
}

/// As [`wait`], if there is a thread to tell of now.
pub(super) fn wait_now() -> io::Result<Option<(i32, Stop)>> {
    waited(libc::WNOHANG)
}

fn waited(options: libc::c_int) -> io::Result<Option<(i32, Stop)>> {
    let mut status = 0;
    // Other threads' children are theirs to wait for.
    // SAFETY: `status` has room for a status.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | options) };
    if thread > 0 {
        return Ok(Some((thread, stop(thread, status))));
    }
    let error = io::Error::last_os_error();
    if thread == 0 || error.kind() == io::ErrorKind::Interrupted {
        return Ok(None);
    }
    Err(error)
}

fn stop(thread: i32, status: i32) -> Stop {
    if libc::WIFEXITED(status) {
        return Stop::Ended(libc::WEXITSTATUS(status).to_le_bytes()[0]);
    }
    if libc::WIFSIGNALED(status) {
        return Stop::Ended((128 + libc::WTERMSIG(status)).to_le_bytes()[0]);
    }
    let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
    match event {
        libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Stop::Group,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            message(thread).map_or(Stop::Event, Stop::Born)
        }
        libc::PTRACE_EVENT_EXEC => message(thread).map_or(Stop::Event, Stop::Executed),
        libc::PTRACE_EVENT_EXIT => message(thread).map_or(Stop::Event, |status| Stop::Ending(libc::WTERMSIG(status))),
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        0 => Stop::Signal(signal),
        _ => Stop::Event,
    }
}

/// The number that comes with an event: of what a thread has just started, the one that it had, or the status it ends with.
fn message(thread: i32) -> Option<i32> {
    let mut number: libc::c_ulong = 0;
    // SAFETY: the kernel writes one `unsigned long`.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, thread, 0usize, &raw mut number) };
    (done == 0).then(|| i32::try_from(number).ok())?
}

/// Lets a thread go to its next system call. It may have been killed meanwhile, which `wait` will tell.
pub(super) fn resume(thread: i32, signal: i32) {
    // SAFETY: PTRACE_SYSCALL takes the signal by value and touches no memory of ours.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0usize, i64::from(signal)) };
}

/// Leaves a thread stopped, but hears of it again.
pub(super) fn listen(thread: i32) {
    // SAFETY: PTRACE_LISTEN takes nothing and touches no memory of ours.
    unsafe { libc::ptrace(libc::PTRACE_LISTEN, thread, 0usize, 0usize) };
}

/// The call that a stopped thread enters or leaves (`struct ptrace_syscall_info`).
pub(super) fn syscall_info(thread: i32) -> Option<Info> {
    let mut words = [0u64; 11];
    // SAFETY: the kernel writes at most the given size to `words`.
    let size = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            thread,
            size_of_val(&words),
            words.as_mut_ptr(),
        )
    };
    if size < 33 {
        return None;
    }
    // Byte 0 tells the kind, bytes 4 to 7 the architecture; at 24, behind the place, the call or its result begins.
    let (kind, architecture) = (words[0].to_le_bytes()[0], u32::try_from(words[0] >> 32).ok()?);
    let place = Place {
        instruction: words[1],
        stack: words[2],
    };
    match kind {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            let arguments = *words[4..].first_chunk()?;
            Some(Info::Entry(Syscall {
                architecture,
                number: words[3],
                arguments,
                place,
            }))
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => Some(Info::Exit(Exit {
            value: words[3].cast_signed(),
            error: words[4].to_le_bytes()[0] != 0,
            place,
        })),
        _ => None,
    }
}

/// Number and architecture of the call for which a filter sent the SIGSYS that a thread is about to get.
pub(super) fn refused_call(thread: i32) -> Option<(u64, u32)> {
    let mut words = [0u64; size_of::<libc::siginfo_t>() / 8];
    // SAFETY: `words` is as large as the siginfo that the kernel writes.
    if unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, thread, 0usize, words.as_mut_ptr()) } != 0 {
        return None;
    }
    // si_signo, si_errno, si_code and a hole; then the address, the call's number and its architecture.
    let code = u32::try_from(words[1] & 0xffff_ffff).ok()?.cast_signed();
    (code == SIGSYS_BY_SECCOMP).then_some((words[3] & 0xffff_ffff, u32::try_from(words[3] >> 32).ok()?))
}

static COMMAND: AtomicI32 = AtomicI32::new(0);
/// A terminal sends these to the command too; only what others send has to be passed on.
const OF_THE_TERMINAL: [i32; 2] = [libc::SIGINT, libc::SIGQUIT];
const PASSED_ON: [i32; 4] = [libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// What is run for a signal, with what is known of who sent it.
pub(super) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

extern "C" fn pass_on(signal: i32, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid one to a handler that asks for it (SA_SIGINFO).
    let by_kernel = unsafe { (*information).si_code } == libc::SI_KERNEL;
    if by_kernel && OF_THE_TERMINAL.contains(&signal) {
        return;
    }
    // SAFETY: kill is async-signal-safe and touches no memory.
    unsafe { libc::kill(COMMAND.load(Ordering::Relaxed), signal) };
}

/// Puts the former actions of signals back when it goes.
pub(super) struct Signals(Vec<(i32, libc::sigaction)>);

/// Signals for this process are the command's until the value goes.
pub(super) fn pass_signals_on(pid: i32) -> Signals {
    COMMAND.store(pid, Ordering::Relaxed);
    Signals::set(OF_THE_TERMINAL.into_iter().chain(PASSED_ON), pass_on)
}

impl Signals {
    /// The handler must do nothing that is not async-signal-safe.
    pub(super) fn set(signals: impl Iterator<Item = i32>, handler: Handler) -> Self {
        // SAFETY: zeroes are a valid action that blocks no signals.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        let former = signals.map(|signal| {
            let mut former = action;
            // SAFETY: the handlers of this module and of `wake` keep to that.
            unsafe { libc::sigaction(signal, &raw const action, &raw mut former) };
            (signal, former)
        });
        Self(former.collect())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, action) in &self.0 {
            // SAFETY: the action was in force before.
            unsafe { libc::sigaction(*signal, action, ptr::null_mut()) };
        }
    }
}
