//! What must be true after every request, and of every reply.

use std::fs;

use fuse::wire::{self, Opcode};
use rustix::fs::{FileType, OFlags};
use zerocopy::FromBytes;

/// What a thread is to the kernel: identity, capabilities, umask.
pub(crate) struct Identity(Vec<String>);

impl Identity {
    pub(crate) fn of_thread() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").expect("procfs");
        let kept = ["Umask:", "Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"];
        let lines = status
            .lines()
            .filter(|line| kept.iter().any(|start| line.starts_with(start)));
        Self(lines.map(str::to_owned).collect())
    }

    /// The calling thread is what it was. Its first request clears umask and supplementary groups for good.
    pub(crate) fn check(&self) {
        for (before, now) in self.0.iter().zip(&Self::of_thread().0) {
            let cleared = ["Umask:\t0000", "Groups:\t"].contains(&now.trim_end_matches(' '));
            assert!(before == now || cleared, "the thread was {before:?} and is {now:?}");
        }
    }
}

/// Open descriptors of the process, the one that lists them included.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// No descriptor of a device, FIFO, socket or link of this file system can do more than name it (O_PATH).
pub(crate) fn no_special_file_is_open(device: u64) {
    for entry in fs::read_dir("/proc/self/fd").expect("procfs") {
        let name = entry.expect("procfs").file_name();
        let number = name.to_str().expect("a number");
        // Another thread may close it and open another one of that number meanwhile: what is wrong stays so.
        if (0..5).all(|_| is_open_special_file(number, device)) {
            let target = fs::read_link(format!("/proc/self/fd/{number}"));
            panic!("descriptor {number} is of a special file, and open: {target:?}");
        }
    }
}

fn is_open_special_file(number: &str, device: u64) -> bool {
    let Ok(stat) = rustix::fs::stat(format!("/proc/self/fd/{number}")) else {
        return false;
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if stat.st_dev != device || matches!(kind, FileType::RegularFile | FileType::Directory) {
        return false;
    }
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
        return false;
    };
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .expect("flags");
    let flags = u32::from_str_radix(flags.trim(), 8).expect("an octal number");
    !OFlags::from_bits_retain(flags).contains(OFlags::PATH)
}

/// Bytes of the body of a reply without error, where the operation alone says it.
pub(crate) fn body_length(opcode: Opcode) -> Option<usize> {
    Some(match opcode {
        Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => size_of::<wire::EntryOut>(),
        Opcode::Create | Opcode::Tmpfile => size_of::<wire::EntryOut>() + size_of::<wire::OpenOut>(),
        Opcode::Getattr | Opcode::Setattr => size_of::<wire::AttrOut>(),
        Opcode::Statx => size_of::<wire::StatxOut>(),
        Opcode::Open | Opcode::Opendir => size_of::<wire::OpenOut>(),
        Opcode::Write | Opcode::CopyFileRange => size_of::<wire::WriteOut>(),
        Opcode::CopyFileRange64 => size_of::<wire::CopyFileRangeOut>(),
        Opcode::Lseek => size_of::<wire::LseekOut>(),
        Opcode::Statfs => size_of::<wire::Statfs>(),
        Opcode::Init => size_of::<wire::InitOut>(),
        Opcode::Readlink
        | Opcode::Read
        | Opcode::Readdir
        | Opcode::Readdirplus
        | Opcode::Getxattr
        | Opcode::Listxattr
        | Opcode::Ioctl => return None,
        _ => 0,
    })
}

/// The nodes of a READDIR or READDIRPLUS reply, whose entries must be whole and fill it.
pub(crate) fn directory(mut body: &[u8], plus: bool) -> Vec<u64> {
    let mut nodes = Vec::new();
    while !body.is_empty() {
        if plus {
            let (entry, rest) = wire::EntryOut::read_from_prefix(body).expect("a whole entry");
            nodes.push(entry.nodeid);
            body = rest;
        }
        let (entry, rest) = wire::Dirent::read_from_prefix(body).expect("a whole entry");
        let length = entry.namelen as usize;
        let name = &rest[..length];
        assert!(!name.is_empty() && length <= 255, "a name of {length} bytes");
        assert!(!name.contains(&0) && !name.contains(&b'/'), "{name:?}");
        body = &rest[length.next_multiple_of(8)..];
    }
    nodes
}
