//! Arguments of a call as a person would write them, read from the stopped thread.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// The longest text that is shown of a path.
const TEXT_MAX: usize = 256;

/// How to show the arguments: `d` directory descriptor, `f` descriptor, `p` path or text, `i` number, `o` octal mode, `x`
/// bits or an address.
const SIGNATURES: &[(&str, &str)] = &[
    ("read", "fxi"),
    ("write", "fxi"),
    ("pread64", "fxii"),
    ("pwrite64", "fxii"),
    ("readv", "fxi"),
    ("writev", "fxi"),
    ("open", "pxo"),
    ("openat", "dpxo"),
    ("openat2", "dpxi"),
    ("creat", "po"),
    ("close", "f"),
    ("dup", "f"),
    ("dup2", "fi"),
    ("dup3", "fix"),
    ("fcntl", "fix"),
    ("ioctl", "fxx"),
    ("lseek", "fii"),
    ("ftruncate", "fi"),
    ("truncate", "pi"),
    ("stat", "px"),
    ("lstat", "px"),
    ("fstat", "fx"),
    ("newfstatat", "dpxx"),
    ("statx", "dpxxx"),
    ("access", "po"),
    ("faccessat", "dpo"),
    ("faccessat2", "dpox"),
    ("readlink", "pxi"),
    ("readlinkat", "dpxi"),
    ("getdents64", "fxi"),
    ("chdir", "p"),
    ("fchdir", "f"),
    ("chroot", "p"),
    ("pivot_root", "pp"),
    ("mkdir", "po"),
    ("mkdirat", "dpo"),
    ("rmdir", "p"),
    ("unlink", "p"),
    ("unlinkat", "dpx"),
    ("rename", "pp"),
    ("renameat", "dpdp"),
    ("renameat2", "dpdpx"),
    ("link", "pp"),
    ("linkat", "dpdpx"),
    ("symlink", "pp"),
    ("symlinkat", "pdp"),
    ("chmod", "po"),
    ("fchmod", "fo"),
    ("fchmodat", "dpo"),
    ("chown", "pii"),
    ("fchown", "fii"),
    ("lchown", "pii"),
    ("fchownat", "dpiix"),
    ("mknod", "pox"),
    ("mknodat", "dpox"),
    ("mount", "pppxx"),
    ("umount2", "px"),
    ("statfs", "px"),
    ("fstatfs", "fx"),
    ("fsync", "f"),
    ("fdatasync", "f"),
    ("fallocate", "fxii"),
    ("mmap", "xixxfx"),
    ("munmap", "xi"),
    ("mprotect", "xix"),
    ("mlock", "xi"),
    ("madvise", "xix"),
    ("mremap", "xiixx"),
    ("brk", "x"),
    ("socket", "iii"),
    ("bind", "fxi"),
    ("listen", "fi"),
    ("connect", "fxi"),
    ("accept", "fxx"),
    ("accept4", "fxxx"),
    ("sendto", "fxixxi"),
    ("recvfrom", "fxixxx"),
    ("sendmsg", "fxx"),
    ("recvmsg", "fxx"),
    ("setsockopt", "fiixi"),
    ("getsockopt", "fiixx"),
    ("shutdown", "fi"),
    ("execve", "pxx"),
    ("execveat", "dpxxx"),
    ("kill", "ii"),
    ("tgkill", "iii"),
    ("tkill", "ii"),
    ("clone", "xxxxx"),
    ("clone3", "xi"),
    ("setuid", "i"),
    ("setgid", "i"),
    ("setresuid", "iii"),
    ("setresgid", "iii"),
    ("setgroups", "ix"),
    ("setrlimit", "ix"),
    ("prlimit64", "iixx"),
    ("ptrace", "iixx"),
    ("prctl", "ixxxx"),
    ("seccomp", "ixx"),
    ("unshare", "x"),
    ("setns", "fx"),
    ("epoll_ctl", "fifx"),
    ("epoll_wait", "fxii"),
    ("ppoll", "xixxi"),
    ("io_uring_setup", "ix"),
    ("io_uring_enter", "fiixxi"),
    ("io_uring_register", "fixi"),
    ("memfd_create", "px"),
    ("getxattr", "ppxi"),
    ("setxattr", "ppxix"),
    ("fgetxattr", "fpxi"),
    ("wait4", "ixxx"),
    ("arch_prctl", "xx"),
    ("rseq", "xixx"),
    ("sethostname", "pi"),
    ("swapon", "px"),
    ("reboot", "xxxx"),
    ("bpf", "ixi"),
    ("perf_event_open", "xiiix"),
    ("inotify_add_watch", "fpx"),
    ("landlock_restrict_self", "fx"),
    ("utimensat", "dpxx"),
    ("flock", "fi"),
];

/// The arguments of a call; all six words where it is not known how many it has.
pub(super) fn decode(thread: i32, name: Option<&str>, words: [u64; 6]) -> Vec<String> {
    let signature = SIGNATURES
        .iter()
        .find(|(known, _)| Some(*known) == name)
        .map_or("xxxxxx", |(_, kinds)| kinds);
    signature
        .chars()
        .zip(words)
        .map(|(kind, word)| show(thread, kind, word))
        .collect()
}

fn show(thread: i32, kind: char, word: u64) -> String {
    // The kernel takes descriptors and most numbers as 32 bits; the upper half of the register means nothing.
    #[expect(clippy::cast_possible_truncation, reason = "the kernel truncates it just so")]
    let short = word as u32 as i32;
    match kind {
        'd' if short == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        'd' | 'f' => match fs::read_link(format!("/proc/{thread}/fd/{short}")) {
            Ok(path) => format!("{short}<{}>", path.display()),
            Err(_) => short.to_string(),
        },
        'p' => text(thread, word).map_or_else(|| format!("{word:#x}"), |text| format!("{text:?}")),
        'i' => short.to_string(),
        'o' if word != 0 => format!("{:#o}", word & 0o177_777),
        _ if word == 0 => "0".to_owned(),
        _ => format!("{word:#x}"),
    }
}

/// Text that ends with NUL in the thread's memory, cut where it is too long or the memory ends.
fn text(thread: i32, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut bytes = vec![0; TEXT_MAX];
    let read = memory.read_at(&mut bytes, address).ok()?;
    bytes.truncate(read);
    let end = bytes.iter().position(|&byte| byte == 0);
    let shown = String::from_utf8_lossy(&bytes[..end.unwrap_or(read)]).into_owned();
    Some(if end.is_some() { shown } else { shown + "..." })
}

/// The name of the thread's program, as `comm` has it.
pub(super) fn program(thread: i32) -> Option<String> {
    Some(
        fs::read_to_string(format!("/proc/{thread}/comm"))
            .ok()?
            .trim_end()
            .to_owned(),
    )
}

/// Whether a seccomp filter is on the thread (`Seccomp: 2`).
pub(super) fn filtered(thread: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}
