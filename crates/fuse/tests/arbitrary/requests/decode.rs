//! Decodes bytes as requests: names from a small pool, nodes and handles that the guest knows, numbers near the
//! edges. Some requests have a wrong length.

use fuse::deferred::OnBlock;
use fuse::wire::{self, InitFlags, Opcode};
use zerocopy::{FromBytes, IntoBytes};

use super::Known;
use super::bytes::Bytes;

/// A request before it has its number.
pub(crate) struct Sent {
    pub(crate) bytes: Vec<u8>,
    /// Bytes for the reply.
    pub(crate) room: usize,
    /// Most bytes of one descriptor.
    pub(crate) cut: usize,
    pub(crate) on_block: OnBlock,
    pub(crate) high_priority: bool,
}

/// Room for any reply that the requests here ask for.
const ROOM: usize = 0x9000;

const OPCODES: &[Opcode] = &[
    Opcode::Lookup,
    Opcode::Lookup,
    Opcode::Lookup,
    Opcode::Mknod,
    Opcode::Mknod,
    Opcode::Mkdir,
    Opcode::Symlink,
    Opcode::Create,
    Opcode::Create,
    Opcode::Open,
    Opcode::Open,
    Opcode::Opendir,
    Opcode::Unlink,
    Opcode::Rmdir,
    Opcode::Rename,
    Opcode::Rename2,
    Opcode::Link,
    Opcode::Tmpfile,
    Opcode::Read,
    Opcode::Write,
    Opcode::Write,
    Opcode::Readdir,
    Opcode::Readdirplus,
    Opcode::Readlink,
    Opcode::Setattr,
    Opcode::Setattr,
    Opcode::Getattr,
    Opcode::Statx,
    Opcode::Statfs,
    Opcode::Access,
    Opcode::Setxattr,
    Opcode::Setxattr,
    Opcode::Getxattr,
    Opcode::Listxattr,
    Opcode::Removexattr,
    Opcode::Fallocate,
    Opcode::CopyFileRange,
    Opcode::CopyFileRange64,
    Opcode::Lseek,
    Opcode::Ioctl,
    Opcode::Ioctl,
    Opcode::Flush,
    Opcode::Fsync,
    Opcode::Fsyncdir,
    Opcode::Syncfs,
    Opcode::Forget,
    Opcode::BatchForget,
    Opcode::Release,
    Opcode::Releasedir,
    Opcode::Interrupt,
    Opcode::Setupmapping,
    Opcode::Removemapping,
    Opcode::Getlk,
    Opcode::Bmap,
];
/// Rarer than the others: they end the session.
const ENDS: &[Opcode] = &[Opcode::Init, Opcode::Destroy];

const XATTRS: &[&[u8]] = &[
    b"user.a",
    b"user.b",
    b"trusted.a",
    b"security.a",
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"a",
    b"",
    &[b'u'; 256],
];
const TARGETS: &[&[u8]] = &[
    b"a",
    b"../canary",
    b"..",
    b"/",
    b"/proc/self/fd/0",
    b"",
    &[b'l'; 4095],
    &[b'l'; 4096],
];
const IOCTLS: &[u32] = &[
    0x8008_6601, // FS_IOC_GETFLAGS
    0x4008_6602, // FS_IOC_SETFLAGS
    0x801c_581f, // FS_IOC_FSGETXATTR
    0x401c_5820, // FS_IOC_FSSETXATTR
    0x541b,      // FIONREAD
    0x4004_9409, // FICLONE
    0x1260,      // BLKGETSIZE
];
const DEVICES: &[u32] = &[0x103, 0x105, 0x500, 0x502, 0x700, 0, u32::MAX];
const USERS: &[u32] = &[0, 0, 0, 1000, 1000, 65534, u32::MAX];
const NUMBERS: &[u64] = &[
    0,
    1,
    4095,
    4096,
    8192,
    1 << 16,
    1 << 20,
    1 << 62,
    i64::MAX as u64 - 4095,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

impl Sent {
    fn new(opcode: Opcode, node: u64, arguments: &[u8]) -> Self {
        let header = wire::InHeader {
            len: (size_of::<wire::InHeader>() + arguments.len()) as u32,
            opcode: opcode as u32,
            nodeid: node,
            pid: 5,
            ..Default::default()
        };
        Self {
            bytes: [header.as_bytes(), arguments].concat(),
            room: ROOM,
            cut: usize::MAX,
            on_block: OnBlock::Wait,
            high_priority: false,
        }
    }

    /// INIT with these flags.
    pub(crate) fn init(flags: u64) -> Self {
        let (flags, flags2) = InitFlags::from_bits_retain(flags).words();
        let input = wire::InitIn {
            major: wire::MAJOR,
            minor: wire::MINOR,
            max_readahead: 1 << 17,
            flags,
            flags2,
            unused: [0; 11],
        };
        Self::new(Opcode::Init, 0, input.as_bytes())
    }

    pub(crate) fn destroy() -> Self {
        Self::new(Opcode::Destroy, 0, &[])
    }
}

/// The next request.
pub(crate) fn request(bytes: &mut Bytes<'_>, known: &Known) -> Sent {
    let choice = bytes.u8();
    let mut sent = match choice {
        0..=243 => valid(OPCODES[usize::from(choice) % OPCODES.len()], bytes, known),
        244..=246 => valid(bytes.one(ENDS), bytes, known),
        247..=250 => raw(bytes),
        // Any operation with any arguments.
        _ => {
            let opcode = bytes.one(Opcode::ALL);
            Sent::new(opcode, node(bytes, known), bytes.some(120))
        }
    };
    let twist = bytes.u8();
    if let Ok((header, _)) = wire::InHeader::mut_from_prefix(&mut sent.bytes) {
        header.uid = USERS[usize::from(twist) % USERS.len()];
        header.gid = USERS[usize::from(twist / 8) % USERS.len()];
    }
    match twist {
        0..=199 => {}
        200..=207 => sent.cut = 7,
        208..=215 => sent.cut = 61,
        216..=223 => sent.on_block = OnBlock::Defer,
        224..=227 => sent.high_priority = true,
        228..=235 => sent.room = usize::from(bytes.u8()),
        236..=239 => change(&mut sent, |header| header.len = header.len.wrapping_add(1)),
        240 => {
            let length = bytes.u32();
            change(&mut sent, |header| header.len = length);
        }
        241..=245 => {
            let rest = sent.bytes.len().saturating_sub(usize::from(bytes.u8()));
            sent.bytes.truncate(rest);
            let length = rest as u32;
            change(&mut sent, |header| header.len = length);
        }
        246..=249 => {
            sent.bytes.extend(bytes.some(64));
            let length = sent.bytes.len() as u32;
            let extensions = u16::from(bytes.u8());
            change(&mut sent, |header| {
                header.len = length;
                header.total_extlen = extensions;
            });
        }
        250..=252 => {
            // One supplementary group (FUSE_EXT_GROUPS).
            let group = [16_u32, 32, 1, bytes.u32()];
            sent.bytes.extend(group.as_bytes());
            let length = sent.bytes.len() as u32;
            change(&mut sent, |header| {
                header.len = length;
                header.total_extlen = 2;
            });
        }
        253 => change(&mut sent, |header| header.opcode = header.opcode.swap_bytes()),
        _ => {
            let opcode = bytes.u32();
            change(&mut sent, |header| header.opcode = opcode);
        }
    }
    sent
}

fn change(sent: &mut Sent, change: impl FnOnce(&mut wire::InHeader)) {
    if let Ok((header, _)) = wire::InHeader::mut_from_prefix(&mut sent.bytes) {
        change(header);
    }
}

/// Bytes that need not be a request.
fn raw(bytes: &mut Bytes<'_>) -> Sent {
    let mut sent = Sent::destroy();
    sent.bytes = bytes.some(255).to_vec();
    sent
}

fn node(bytes: &mut Bytes<'_>, known: &Known) -> u64 {
    match bytes.u8() {
        0..=99 => 1,
        254 => bytes.one(NUMBERS),
        255 => bytes.u64(),
        _ if known.nodes.is_empty() => 1,
        choice => known.nodes[usize::from(choice) % known.nodes.len()],
    }
}

/// A node with one of its handles, mostly.
fn handle(bytes: &mut Bytes<'_>, known: &Known) -> (u64, u64) {
    match bytes.u8() {
        250..=252 => (node(bytes, known), bytes.one(NUMBERS)),
        choice if choice >= 253 || known.handles.is_empty() => (node(bytes, known), 0),
        choice => known.handles[usize::from(choice) % known.handles.len()],
    }
}

/// A name with its end.
fn name(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut name = match bytes.u8() & 31 {
        0 => b"..".to_vec(),
        1 => b".".to_vec(),
        2 => b"a/b".to_vec(),
        3 => vec![b'n'; 256],
        4 => Vec::new(),
        5 | 6 => vec![b'n'; 255],
        7 | 8 => vec![0xff, b'\n', 0x80],
        choice => vec![b'a' + choice % 5],
    };
    name.push(0);
    name
}

fn ended(text: &[u8]) -> Vec<u8> {
    [text, b"\0"].concat()
}

/// Where in a file: small, or near an edge.
fn number(bytes: &mut Bytes<'_>) -> u64 {
    match bytes.u8() {
        choice @ 0..=127 => NUMBERS[usize::from(choice) % NUMBERS.len()],
        _ => bytes.u16().into(),
    }
}

fn mode(bytes: &mut Bytes<'_>) -> u32 {
    let kind = bytes.one(&[
        libc::S_IFREG,
        libc::S_IFIFO,
        libc::S_IFSOCK,
        libc::S_IFCHR,
        libc::S_IFBLK,
        libc::S_IFREG,
        libc::S_IFDIR,
        libc::S_IFLNK,
        0,
    ]);
    kind | u32::from(bytes.u16() & 0o7777)
}

fn open_flags(bytes: &mut Bytes<'_>) -> u32 {
    const FLAGS: &[i32] = &[
        0,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_DIRECT,
        libc::O_NOFOLLOW,
        libc::O_DIRECTORY,
        libc::O_EXCL,
        libc::O_NONBLOCK,
        libc::O_PATH,
        libc::O_SYNC,
        libc::O_NOATIME,
        libc::O_CREAT,
        libc::O_TMPFILE,
    ];
    let access = bytes.one(&[libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY, 3]);
    match bytes.u8() {
        0..=127 => access as u32,
        128..=249 => (access | bytes.one(FLAGS) | bytes.one(FLAGS)) as u32,
        _ => bytes.u32(),
    }
}

/// A request as a guest might send it.
fn valid(opcode: Opcode, bytes: &mut Bytes<'_>, known: &Known) -> Sent {
    match opcode {
        Opcode::Read | Opcode::Readdir | Opcode::Readdirplus | Opcode::Write => read_or_write(opcode, bytes, known),
        Opcode::Flush
        | Opcode::Release
        | Opcode::Releasedir
        | Opcode::Fsync
        | Opcode::Fsyncdir
        | Opcode::Fallocate
        | Opcode::Lseek
        | Opcode::CopyFileRange
        | Opcode::CopyFileRange64
        | Opcode::Ioctl => on_handle(opcode, bytes, known),
        Opcode::Setxattr | Opcode::Getxattr | Opcode::Listxattr | Opcode::Removexattr => xattr(opcode, bytes, known),
        _ => on_node(opcode, bytes, known),
    }
}

fn read_or_write(opcode: Opcode, bytes: &mut Bytes<'_>, known: &Known) -> Sent {
    let (node, fh) = handle(bytes, known);
    let size = u32::from(bytes.u16()) % 0x8000;
    let offset = match opcode {
        Opcode::Read | Opcode::Write => number(bytes),
        _ => u64::from(bytes.u8() & 7),
    };
    if opcode == Opcode::Write {
        let size = size % 0x2000;
        let input = wire::WriteIn {
            fh,
            offset,
            size,
            write_flags: u32::from(bytes.u8() & 7),
            flags: open_flags(bytes),
            ..Default::default()
        };
        let data = vec![bytes.u8(); size as usize];
        return Sent::new(opcode, node, &[input.as_bytes(), &data].concat());
    }
    let input = wire::ReadIn {
        fh,
        offset,
        size,
        ..Default::default()
    };
    Sent::new(opcode, node, input.as_bytes())
}

fn on_handle(opcode: Opcode, bytes: &mut Bytes<'_>, known: &Known) -> Sent {
    let (node, fh) = handle(bytes, known);
    let arguments = match opcode {
        Opcode::Flush => wire::FlushIn {
            fh,
            ..Default::default()
        }
        .as_bytes()
        .to_vec(),
        Opcode::Release | Opcode::Releasedir => wire::ReleaseIn {
            fh,
            ..Default::default()
        }
        .as_bytes()
        .to_vec(),
        Opcode::Fsync | Opcode::Fsyncdir => wire::FsyncIn {
            fh,
            fsync_flags: u32::from(bytes.u8() & 1),
            padding: 0,
        }
        .as_bytes()
        .to_vec(),
        Opcode::Fallocate => wire::FallocateIn {
            fh,
            offset: number(bytes),
            length: number(bytes),
            mode: u32::from(bytes.u8() & 0x7f),
            padding: 0,
        }
        .as_bytes()
        .to_vec(),
        Opcode::Lseek => wire::LseekIn {
            fh,
            offset: number(bytes),
            whence: u32::from(bytes.u8() % 6),
            padding: 0,
        }
        .as_bytes()
        .to_vec(),
        Opcode::Ioctl => {
            let cmd = if bytes.u8() < 230 {
                bytes.one(IOCTLS)
            } else {
                bytes.u32()
            };
            let data = match bytes.u8() & 3 {
                0 => bytes.some(32).to_vec(),
                1 => bytes.u32().to_le_bytes().to_vec(),
                // FS_IMMUTABLE_FL and its neighbours.
                2 => (1_u32 << (bytes.u8() & 7)).to_le_bytes().to_vec(),
                _ => vec![0; 28],
            };
            let input = wire::IoctlIn {
                fh,
                flags: u32::from(bytes.u8() & 0x1f),
                cmd,
                arg: 0,
                in_size: data.len() as u32,
                out_size: bytes.one(&[0, 4, 8, 28, 64, 0x4000]),
            };
            [input.as_bytes(), &data].concat()
        }
        _ => {
            let (nodeid_out, fh_out) = handle(bytes, known);
            wire::CopyFileRangeIn {
                fh_in: fh,
                off_in: number(bytes),
                nodeid_out,
                fh_out,
                off_out: number(bytes),
                // Sparse files are copied as if they were full.
                len: u64::from(bytes.u16()),
                flags: u64::from(bytes.u8() / 250),
            }
            .as_bytes()
            .to_vec()
        }
    };
    Sent::new(opcode, node, &arguments)
}

fn xattr(opcode: Opcode, bytes: &mut Bytes<'_>, known: &Known) -> Sent {
    let node = node(bytes, known);
    let name = ended(bytes.one(XATTRS));
    let size = bytes.one(&[0, 1, 16, 255, 0x8000, 0x1_0000, u32::MAX]);
    let arguments = match opcode {
        Opcode::Setxattr => {
            let value = match bytes.u8() {
                0..=31 => vec![b'v'; 0x1_0000],
                // An ACL of owner, group and others.
                32..=95 => {
                    let entry = |tag: u16, mode: u8| [tag, u16::from(mode & 7), u16::MAX, u16::MAX];
                    let entries = [entry(1, bytes.u8()), entry(4, bytes.u8()), entry(0x20, bytes.u8())];
                    [2_u32.as_bytes(), entries.as_bytes()].concat()
                }
                _ => bytes.some(64).to_vec(),
            };
            let input = wire::SetxattrIn {
                size: value.len() as u32,
                flags: u32::from(bytes.u8() & 3),
                setxattr_flags: u32::from(bytes.u8() & 1),
                padding: 0,
            };
            [input.as_bytes(), &name, &value].concat()
        }
        Opcode::Removexattr => name,
        Opcode::Listxattr => wire::GetxattrIn { size, padding: 0 }.as_bytes().to_vec(),
        _ => [wire::GetxattrIn { size, padding: 0 }.as_bytes(), &name].concat(),
    };
    Sent::new(opcode, node, &arguments)
}

fn on_node(opcode: Opcode, bytes: &mut Bytes<'_>, known: &Known) -> Sent {
    let node_id = node(bytes, known);
    let umask = |bytes: &mut Bytes<'_>| u32::from(bytes.u8() & 0o77);
    let arguments = match opcode {
        Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir => name(bytes),
        Opcode::Mknod => {
            let input = wire::MknodIn {
                mode: mode(bytes),
                rdev: bytes.one(DEVICES),
                umask: umask(bytes),
                padding: 0,
            };
            [input.as_bytes(), &name(bytes)].concat()
        }
        Opcode::Mkdir => {
            let input = wire::MkdirIn {
                mode: u32::from(bytes.u16()),
                umask: umask(bytes),
            };
            [input.as_bytes(), &name(bytes)].concat()
        }
        Opcode::Symlink => [name(bytes), ended(bytes.one(TARGETS))].concat(),
        Opcode::Create | Opcode::Tmpfile => {
            let input = wire::CreateIn {
                flags: open_flags(bytes),
                mode: libc::S_IFREG | u32::from(bytes.u16() & 0o7777),
                umask: umask(bytes),
                open_flags: u32::from(bytes.u8() & 1),
            };
            [input.as_bytes(), &name(bytes)].concat()
        }
        Opcode::Open | Opcode::Opendir => wire::OpenIn {
            flags: open_flags(bytes),
            open_flags: u32::from(bytes.u8() & 1),
        }
        .as_bytes()
        .to_vec(),
        Opcode::Rename => {
            let newdir = node(bytes, known);
            [wire::RenameIn { newdir }.as_bytes(), &name(bytes), &name(bytes)].concat()
        }
        Opcode::Rename2 => {
            let input = wire::Rename2In {
                newdir: node(bytes, known),
                flags: u32::from(bytes.u8() & 15),
                padding: 0,
            };
            [input.as_bytes(), &name(bytes), &name(bytes)].concat()
        }
        Opcode::Link => {
            let oldnodeid = node(bytes, known);
            [wire::LinkIn { oldnodeid }.as_bytes(), &name(bytes)].concat()
        }
        Opcode::Setattr => setattr(bytes, known),
        Opcode::Getattr => wire::GetattrIn {
            getattr_flags: u32::from(bytes.u8() & 1),
            dummy: 0,
            fh: handle(bytes, known).1,
        }
        .as_bytes()
        .to_vec(),
        Opcode::Statx => wire::StatxIn {
            getattr_flags: u32::from(bytes.u8() & 1),
            reserved: 0,
            fh: handle(bytes, known).1,
            sx_flags: bytes.u32(),
            sx_mask: bytes.u32(),
        }
        .as_bytes()
        .to_vec(),
        Opcode::Access => wire::AccessIn {
            mask: u32::from(bytes.u8() & 15),
            padding: 0,
        }
        .as_bytes()
        .to_vec(),
        Opcode::Syncfs | Opcode::Interrupt => vec![0; 8],
        Opcode::Forget => {
            let nlookup = if bytes.u8() < 200 { 1 } else { number(bytes) };
            wire::ForgetIn { nlookup }.as_bytes().to_vec()
        }
        Opcode::BatchForget => {
            let count = u32::from(bytes.u8() & 7);
            let mut arguments = wire::BatchForgetIn { count, dummy: 0 }.as_bytes().to_vec();
            for _ in 0..count {
                let nodeid = node(bytes, known);
                arguments.extend(wire::ForgetOne { nodeid, nlookup: 1 }.as_bytes());
            }
            arguments
        }
        Opcode::Init => {
            let mut input = wire::InitIn::default();
            let sent = Sent::init(if bytes.u8() < 128 { u64::MAX } else { bytes.u64() });
            input
                .as_mut_bytes()
                .copy_from_slice(&sent.bytes[size_of::<wire::InHeader>()..]);
            input.minor = bytes.one(&[wire::MINOR, wire::MINOR, 31, 30, 36, u32::MAX]);
            input.major = bytes.one(&[wire::MAJOR, wire::MAJOR, wire::MAJOR, 6, 8]);
            input.as_bytes().to_vec()
        }
        Opcode::Setupmapping => vec![0; 40],
        Opcode::Removemapping => vec![0; 4],
        _ => Vec::new(),
    };
    Sent::new(opcode, node_id, &arguments)
}

fn setattr(bytes: &mut Bytes<'_>, known: &Known) -> Vec<u8> {
    wire::SetattrIn {
        valid: u32::from(bytes.u16() & 0xfff),
        fh: handle(bytes, known).1,
        size: number(bytes),
        atime: number(bytes),
        mtime: number(bytes),
        atimensec: bytes.u32(),
        mode: u32::from(bytes.u16()),
        uid: bytes.one(USERS),
        gid: bytes.one(USERS),
        ..Default::default()
    }
    .as_bytes()
    .to_vec()
}
