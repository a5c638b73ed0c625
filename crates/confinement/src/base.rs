//! What every thread does, whatever the device: Rust's library, the allocators of musl and glibc, locks, panics and the end.

use crate::argument::Argument;
use crate::permit::Permit;
use crate::system_calls as call;

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const MAP_ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
const STDERR: u32 = libc::STDERR_FILENO as u32;

/// A new thread's flags: it shares all that threads of a process share, and gets no namespace.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// Why a call is made that no exercise of a device shows.
const STOPPED: &str = "when a wait goes on after SIGSTOP and SIGCONT";
const CONTENTION: &str = "when threads meet at a lock or a channel";
const ALLOCATORS: &str = "when an allocator grows its heap or a large block";
const LOST_MEMORY: &str = "when a file of the guest's memory has been cut short";
const ABORT: &str = "when the C library aborts, as after corruption of the heap";

/// For every thread.
pub(crate) const EVERY_THREAD: &[Permit] = &[
    // Locks, and waiting for another thread.
    call::FUTEX.any(),
    call::SCHED_YIELD.any().rarely(CONTENTION),
    call::RESTART_SYSCALL.any().rarely(STOPPED),
    // Memory, none of it executable.
    call::MMAP.when(&[&[
        Argument::without(2, PROT_EXEC),
        Argument::bits(3, MAP_ANONYMOUS, MAP_ANONYMOUS),
    ]]),
    call::MPROTECT.when(&[&[Argument::without(2, PROT_EXEC)]]),
    call::MUNMAP.any(),
    call::MREMAP.any().rarely(ALLOCATORS),
    call::MADVISE.any(),
    call::BRK.any().rarely(ALLOCATORS),
    // Time, where the vDSO has to ask, and seeds of hash tables.
    call::CLOCK_GETTIME.any(),
    call::GETRANDOM.any(),
    // Signal handlers of Rust's runtime, and the thread's alternate stack.
    call::RT_SIGACTION.any(),
    call::RT_SIGPROCMASK.any(),
    call::RT_SIGRETURN.any().rarely(LOST_MEMORY),
    call::SIGALTSTACK.any(),
    // Messages to standard error.
    call::WRITE.when(&[&[Argument::is(0, STDERR)]]),
    call::WRITEV.when(&[&[Argument::is(0, STDERR)]]).rarely(ABORT),
    // The C library looks for the stack of a new thread, after its name is set.
    call::SCHED_GETAFFINITY.any(),
    // The end of a descriptor; a debug build asks whether it is open.
    call::CLOSE.any(),
    call::FCNTL.when(&[&[Argument::is(1, libc::F_GETFD as u32)]]),
    // The end of a thread, of the process, and abort(3).
    call::EXIT.any(),
    call::EXIT_GROUP.any(),
    call::GETPID.any(),
    call::GETTID.any(),
    call::TGKILL
        .when(&[&[Argument::own_process(0), Argument::is(2, libc::SIGABRT as u32)]])
        .rarely(ABORT),
];

/// For a thread that starts others: what the C library and Rust's do on both sides, and the new thread's own filter.
pub(crate) const STARTS_THREADS: &[Permit] = &[
    call::CLONE.when(&[&[Argument::bits(0, THREAD | NAMESPACES, THREAD)]]),
    call::SET_ROBUST_LIST.any(),
    call::RSEQ.any(),
    call::PRCTL.when(&[&[Argument::is(0, libc::PR_SET_NAME as u32)]]),
    call::PRCTL.when(&[&[Argument::is(0, libc::PR_SET_NO_NEW_PRIVS as u32)]]),
    // No flag: the filter is the calling thread's own.
    call::SECCOMP.when(&[&[Argument::is(0, libc::SECCOMP_SET_MODE_FILTER), Argument::is(1, 0)]]),
];

/// Calls that get an errno where all others end the process: the C library has another way.
pub(crate) const ANSWERED: &[(call::SystemCall, i32)] = &[
    // Its arguments lie in memory, where no filter sees them. glibc takes clone(2) then.
    (call::CLONE3, libc::ENOSYS),
    // musl's abort(3), which then ends the process in another way. Which process it would reach, no filter can tell.
    (call::TKILL, libc::EPERM),
];

/// The errno that `of` gets in every confined thread, though no list has it.
#[must_use]
pub fn answered(of: call::SystemCall) -> Option<i32> {
    ANSWERED.iter().find(|(call, _)| *call == of).map(|(_, errno)| *errno)
}
