//! Calls that signals end, or that end by one. A process has to request interruption and filtering from the kernel,
//! which has no safe interface.
#![expect(unsafe_code, reason = "sigaction, prctl and calls by number have no safe interface")]

mod made;

use std::io;
use std::mem::zeroed;
use std::ptr;

use made::made;
use why::ptrace::{Failure, Outcome, Report};

fn of<'r>(report: &'r Report, call: &str) -> Vec<&'r Failure> {
    let failures = report.failures.iter();
    failures.filter(|failure| failure.call == call).collect()
}

fn refused(report: &Report) -> Vec<&Failure> {
    let failures = report.failures.iter();
    failures.filter(|failure| failure.outcome == Outcome::Sigsys).collect()
}

extern "C" fn handler(_: i32) {
    // SAFETY: touches no memory; the number names no descriptor.
    unsafe { libc::close(1 << 20) };
}

/// Reads from a pipe that stays empty, until an alarm has come; with `SA_RESTART` also after that, until it has an end.
fn read_until_an_alarm(flags: i32) -> io::Result<usize> {
    let (reader, writer) = io::pipe().unwrap();
    // SAFETY: zeroes are a valid action.
    let mut action: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = handler as extern "C" fn(i32) as libc::sighandler_t;
    action.sa_flags = flags;
    // SAFETY: the handler does nothing that is not async-signal-safe.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
    // SAFETY: gives the thread's number.
    let thread = unsafe { libc::pthread_self() };
    let other = std::thread::spawn(move || {
        for _ in 0..2 {
            std::thread::sleep(std::time::Duration::from_millis(100));
            // SAFETY: that thread waits for this one.
            unsafe { libc::pthread_kill(thread, libc::SIGALRM) };
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(writer);
    });
    let mut byte = 0_u8;
    // SAFETY: `byte` has room for one byte.
    let read = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&reader), (&raw mut byte).cast(), 1) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error());
    other.join().unwrap();
    read
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn interrupted() {
    let error = read_until_an_alarm(0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINTR));
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn interrupted_and_made_again() {
    assert_eq!(read_until_an_alarm(libc::SA_RESTART).unwrap(), 0);
}

#[test]
fn a_call_fails_by_a_signal_if_its_program_sees_that() {
    let report = made("interrupted");
    assert_eq!(report.status, 0);
    let reads = of(&report, "read");
    let [read] = reads[..] else {
        panic!("{:?}", report.failures.last());
    };
    assert_eq!((read.outcome, read.inferred), (Outcome::Errno(libc::EINTR), true));
    assert!(read.arguments[0].contains("<pipe:"), "{read:?}");
    let again = made("interrupted_and_made_again");
    assert_eq!(again.status, 0);
    assert_eq!(of(&again, "read"), Vec::<&Failure>::new());
    for report in [&report, &again] {
        assert_eq!(
            of(report, "rt_sigreturn"),
            Vec::<&Failure>::new(),
            "what it puts back is no result"
        );
        assert!(!of(report, "close").is_empty(), "calls in the handler are told");
    }
}

/// Has a filter do this to mkdir(), and calls it.
fn filtered(action: u32) {
    let load_number = libc::sock_filter {
        code: 0x20,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let is_mkdir = libc::sock_filter {
        code: 0x15,
        jt: 0,
        jf: 1,
        k: libc::SYS_mkdir as u32,
    };
    let end = |k| libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [load_number, is_mkdir, end(action), end(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes numbers alone.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` has as many instructions as it says.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0);
    // SAFETY: the path ends with NUL.
    unsafe { libc::syscall(libc::SYS_mkdir, c"/no/such/directory".as_ptr(), 0o700) };
}

/// Sends to this thread what a filter would have sent for mkdir().
fn forge() {
    let mut words = [0_u32; size_of::<libc::siginfo_t>() / 4];
    (words[0], words[2]) = (libc::SIGSYS.cast_unsigned(), 1);
    (words[6], words[7]) = (libc::SYS_mkdir as u32, why::ptrace::AUDIT_X86_64);
    let own = std::process::id();
    // SAFETY: takes numbers, and a siginfo that is as large as the kernel's.
    unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, own, libc::SIGSYS, words.as_ptr()) };
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn trapped() {
    // SAFETY: the handler does nothing that is not async-signal-safe.
    unsafe { libc::signal(libc::SIGSYS, handler as extern "C" fn(i32) as libc::sighandler_t) };
    filtered(libc::SECCOMP_RET_TRAP);
    forge();
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn forged() {
    // SAFETY: as in `trapped`.
    unsafe { libc::signal(libc::SIGSYS, handler as extern "C" fn(i32) as libc::sighandler_t) };
    forge();
}

#[test]
fn a_filters_signal_is_told_with_the_arguments_and_a_forged_one_is_not() {
    let report = made("trapped");
    let told = refused(&report);
    let [mkdir] = told[..] else {
        panic!("{:?}", report.failures.last());
    };
    assert_eq!((mkdir.call.as_str(), mkdir.inferred), ("mkdir", false));
    assert_eq!(mkdir.arguments, ["\"/no/such/directory\"", "0o700"]);
    let report = made("forged");
    assert_eq!(refused(&report), Vec::<&Failure>::new());
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn killed() {
    filtered(libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn killed_as_a_thread() {
    let (reader, writer) = io::pipe().unwrap();
    std::thread::spawn(move || {
        // It is closed when the kernel ends the last thread.
        let _open_to_the_end = writer;
        filtered(libc::SECCOMP_RET_KILL_THREAD);
    });
    let poll = libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&reader),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polls = [poll];
    // SAFETY: one entry, as the second argument says.
    unsafe { libc::poll(polls.as_mut_ptr(), 1, 500) };
    std::process::exit(7);
}

#[test]
#[ignore = "makes the calls that other tests look at"]
fn ended_by_a_signal() {
    filtered(libc::SECCOMP_RET_ALLOW);
    let own = std::process::id().cast_signed();
    // SAFETY: takes numbers alone.
    unsafe { libc::kill(own, libc::SIGSYS) };
}

#[test]
fn what_a_filter_ends_is_told_as_likely() {
    for case in ["killed", "killed_as_a_thread"] {
        let report = made(case);
        let told = refused(&report);
        let [mkdir] = told[..] else {
            panic!("{case}: {told:?}");
        };
        assert_eq!((mkdir.call.as_str(), mkdir.inferred), ("mkdir", true), "{case}");
        assert_eq!(mkdir.arguments, ["\"/no/such/directory\"", "0o700"], "{case}");
        let others_go_on = case == "killed_as_a_thread";
        assert_eq!(report.status, if others_go_on { 7 } else { 128 + 31 });
    }
    let report = made("ended_by_a_signal");
    assert_eq!(report.status, 128 + 31);
    assert_eq!(refused(&report), Vec::<&Failure>::new());
}
