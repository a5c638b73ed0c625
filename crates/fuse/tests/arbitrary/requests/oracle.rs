//! Properties that must hold after every request, and for every reply.

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use fuse::wire::{self, Opcode};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, open, statat};
use zerocopy::FromBytes;

/// What a thread is to the kernel: identity, capabilities, umask.
pub(crate) struct Identity(Vec<String>);

impl Identity {
    pub(crate) fn of_thread() -> Self {
        let mut lines = Vec::new();
        each_line(|_, line| lines.push(line.to_owned()));
        Self(lines)
    }

    /// The calling thread is what it was. Its first request clears umask and supplementary groups for good.
    pub(crate) fn check(&self) {
        each_line(|index, now| {
            let before = &self.0[index];
            let cleared = now == "Umask:\t0000" || now.trim_end() == "Groups:";
            assert!(before == now || cleared, "the thread was {before:?} and is {now:?}");
        });
    }
}

/// Hands each line about identity to `each`, with its number. Allocates nothing: this is done after every request.
fn each_line(mut each: impl FnMut(usize, &str)) {
    const KEPT: [&str; 6] = ["Umask:", "Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open(c"/proc/thread-self/status", flags, Mode::empty()).expect("procfs");
    let mut buffer = [0; 4096];
    let count = rustix::io::read(&file, &mut buffer).expect("procfs");
    let status = std::str::from_utf8(&buffer[..count]).expect("text");
    let kept = status
        .lines()
        .filter(|line| KEPT.iter().any(|start| line.starts_with(start)));
    kept.take(KEPT.len())
        .enumerate()
        .for_each(|(index, line)| each(index, line));
}

/// Open descriptors of the process, the one that lists them included.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// No descriptor of a device, FIFO, socket or link of this file system can do more than name it (O_PATH).
pub(crate) fn no_special_file_is_open(device: u64) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(c"/proc/self/fd", flags, Mode::empty()).expect("procfs");
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.expect("procfs");
        let name = entry.file_name();
        // Another thread may close it and open another one of that number meanwhile: what is wrong stays so.
        if (0..5).all(|_| is_special(&directory, name, device) && is_more_than_a_name(name)) {
            panic!("descriptor {name:?} is of a special file, and open");
        }
    }
}

fn is_special(directory: &OwnedFd, name: &CStr, device: u64) -> bool {
    let Ok(stat) = statat(directory, name, AtFlags::empty()) else {
        return false;
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    stat.st_dev == device && !matches!(kind, FileType::RegularFile | FileType::Directory)
}

fn is_more_than_a_name(descriptor: &CStr) -> bool {
    let path = format!("/proc/self/fdinfo/{}", descriptor.to_string_lossy());
    let Ok(info) = fs::read_to_string(path) else {
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
