//! Signals as descriptors to wait for, so that no handler interrupts a working thread.
#![expect(
    unsafe_code,
    reason = "signal masks and signalfd(2) have no safe wrapper among our dependencies"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// The signals that end innkeeper.
pub const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Makes a write beyond RLIMIT_FSIZE fail with EFBIG (setrlimit(2)), which a guest is told, instead of ending the process.
pub fn outlive_the_limit_of_file_size() {
    // SAFETY: SIG_IGN is a valid disposition for this signal; it cannot fail.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Signals that reach only whoever waits here.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Takes `signals` for the calling thread and every thread it starts from now on; to be called before the first.
    /// A signal the process was started to ignore (nohup) stays ignored.
    pub fn take(signals: &[i32]) -> io::Result<Self> {
        let mut set = empty_set();
        for &signal in signals {
            if !ignored(signal)? {
                // SAFETY: `set` is an initialised signal set.
                unsafe { libc::sigaddset(&mut set, signal) };
            }
        }
        // SAFETY: `set` is an initialised signal set; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: `set` is an initialised signal set.
        let descriptor = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd has just made this descriptor, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Waits for the next of the signals and answers its number.
    pub fn wait(&self) -> io::Result<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: `info` has room for `size` bytes.
            let got = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            if got == size as isize {
                // SAFETY: the kernel has filled the whole structure.
                return Ok(unsafe { info.assume_init() }.ssi_signo.cast_signed());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl AsFd for Signals {
    /// Readable once a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocks no signal any more: for a child between fork and exec, which would inherit our mask. Async-signal-safe.
pub fn unblock_all() -> io::Result<()> {
    let set = empty_set();
    // SAFETY: `set` is an initialised signal set; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set it is given and cannot fail for a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised just above.
    unsafe { set.assume_init() }
}

fn ignored(signal: i32) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `action` has room for the answer; no new action is set.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled the whole structure.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}
