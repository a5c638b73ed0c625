//! Everyday failures, which programs cause on purpose: they hide the one that matters.

use why::context::has_a_limit;
use why::ptrace::{Failure, Outcome};

/// Whether a program that works well makes calls that fail like this.
pub(super) fn is_everyday(failure: &Failure) -> bool {
    let Outcome::Errno(errno) = failure.outcome else {
        return false;
    };
    if failure.searching {
        return true;
    }
    let first = failure.arguments.first().map_or("", String::as_str);
    let second = failure.arguments.get(1).map_or("", String::as_str);
    match (failure.call.as_str(), errno) {
        // These ran into a limit, which waiting does not lift.
        (call, libc::EAGAIN) if has_a_limit(call) => false,
        // Not now: the caller waits, or asks again.
        (_, libc::EAGAIN | libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => true,
        // The dynamic loader, the locale's and the character sets' files are looked for in many places.
        ("access" | "open" | "stat" | "readlink", libc::ENOENT) => is_looked_for(first),
        ("openat" | "newfstatat" | "faccessat" | "faccessat2" | "readlinkat", libc::ENOENT) => is_looked_for(second),
        // Is this a terminal, can this be sought, is there another child?
        ("ioctl", libc::ENOTTY) | ("lseek", libc::ESPIPE) | ("wait4" | "waitid", libc::ECHILD) => true,
        // The rest of a wait that was interrupted, by being attached to for one.
        ("restart_syscall", _) => true,
        _ => false,
    }
}

fn is_looked_for(path: &str) -> bool {
    [
        "/ld.so.",
        ".so\"",
        ".so.",
        "/locale",
        "/gconv",
        "/glibc-hwcaps/",
        "/lib/x86_64",
        "/lib/aarch64",
    ]
    .iter()
    .any(|part| path.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(call: &str, arguments: &[&str], errno: i32) -> Failure {
        Failure {
            thread: 1,
            program: None,
            number: 0,
            architecture: why::ptrace::AUDIT_X86_64,
            call: call.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            outcome: Outcome::Errno(errno),
            filtered: false,
            inferred: false,
            dropped_before: 0,
            searching: false,
            context: why::context::Context::default(),
            log: Vec::new(),
        }
    }

    #[test]
    fn what_the_loader_looks_for_is_everyday_and_what_the_program_looks_for_is_not() {
        let open = |path: &str| is_everyday(&failed("openat", &["AT_FDCWD", path], libc::ENOENT));
        assert!(open("\"/lib/x86_64-linux-gnu/libgcc_s.so.1\""));
        assert!(open("\"/etc/ld.so.cache\""));
        assert!(!open("\"/etc/app.conf\""));
        let denied = failed("openat", &["AT_FDCWD", "\"/lib/libx.so\""], libc::EACCES);
        assert!(
            !is_everyday(&denied),
            "a library that is there and may not be read is news"
        );
    }

    #[test]
    fn questions_that_fail_for_an_answer_are_everyday() {
        assert!(is_everyday(&failed("ioctl", &["1", "TCGETS"], libc::ENOTTY)));
        assert!(is_everyday(&failed("read", &["3"], libc::EAGAIN)));
        assert!(
            !is_everyday(&failed("clone", &["SIGCHLD"], libc::EAGAIN)),
            "too many processes"
        );
        assert!(
            !is_everyday(&failed("io_setup", &["128"], libc::EAGAIN)),
            "fs.aio-max-nr"
        );
        assert!(!is_everyday(&failed("read", &["3"], libc::EIO)));
    }
}
