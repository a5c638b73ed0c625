//! A file system that records its calls and answers with made-up figures.

use std::ffi::CStr;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use fuse::fs::*;
use fuse::wire::{self, InitFlags};
use guestmem::{Reader, Writer};

/// See the module.
#[derive(Default)]
pub(crate) struct Recorder {
    calls: Mutex<Vec<String>>,
    /// See `gated`.
    gate: Option<(Sender<()>, Mutex<Receiver<()>>)>,
    /// If set, every operation that can fail does.
    failing: Mutex<Option<Errno>>,
}

impl Recorder {
    /// The calls since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// One whose GETATTR says through `began` that it began, and waits for `go_on`.
    pub(crate) fn gated(began: Sender<()>, go_on: Receiver<()>) -> Recorder {
        Recorder {
            gate: Some((began, Mutex::new(go_on))),
            ..Default::default()
        }
    }

    /// Lets every operation fail from here on.
    pub(crate) fn fail(&self, errno: Errno) {
        *self.failing.lock().unwrap() = Some(errno);
    }

    fn note(&self, call: String) -> Result<()> {
        self.calls.lock().unwrap().push(call);
        self.failing.lock().unwrap().map_or(Ok(()), Err)
    }
}

pub(crate) fn attr() -> wire::Attr {
    wire::Attr {
        ino: 42,
        size: 4096,
        mode: 0o100_644,
        nlink: 1,
        blksize: 512,
        flags: wire::ATTR_SUBMOUNT,
        ..Default::default()
    }
}

pub(crate) fn entry() -> Entry {
    let (attr_timeout, entry_timeout) = (Duration::from_millis(1500), Duration::from_secs(3));
    Entry {
        node: NodeId(42),
        generation: 9,
        attr: attr(),
        attr_timeout,
        entry_timeout,
    }
}

fn who(by: &Caller) -> String {
    match by.supplementary_group {
        Some(group) => format!("{}:{}+{group}/{}", by.uid, by.gid, by.pid),
        None => format!("{}:{}/{}", by.uid, by.gid, by.pid),
    }
}

fn text(name: Name<'_>) -> &str {
    name.as_c_str().to_str().unwrap_or("?")
}

fn how(create: &Create) -> String {
    format!(
        "mode={:o} umask={:o} flags={:x} device={:x}",
        create.mode, create.umask, create.flags, create.device
    )
}

impl FileSystem for &Recorder {
    fn wants(&self, offered: InitFlags) -> InitFlags {
        self.note(format!("wants {:#x}", offered.bits())).unwrap_or_default();
        InitFlags::all()
    }
    fn init(&self, terms: Negotiated) -> Result<()> {
        self.note(format!("init 7.{} {:#x}", terms.minor, terms.flags.bits()))
    }
    fn destroy(&self) {
        self.note("destroy".into()).unwrap_or_default();
    }
    fn lookup(&self, by: &Caller, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.note(format!("lookup {} {} {}", who(by), parent.0, text(name)))?;
        Ok(entry())
    }
    fn forget(&self, node: NodeId, count: u64) -> bool {
        self.note(format!("forget {} {count}", node.0)).unwrap_or_default();
        true
    }
    fn getattr(&self, by: &Caller, node: NodeId, handle: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        if let Some((began, go_on)) = &self.gate {
            began.send(()).unwrap();
            go_on.lock().unwrap().recv().unwrap();
        }
        self.note(format!("getattr {} {} {handle:?}", who(by), node.0))?;
        Ok((attr(), Duration::from_millis(2500)))
    }
    fn statx(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Option<Handle>,
        flags: u32,
        mask: u32,
    ) -> Result<(wire::Statx, Duration)> {
        self.note(format!("statx {} {} {handle:?} {flags:x} {mask:x}", who(by), node.0))?;
        Ok((
            wire::Statx {
                mask: 0x7ff,
                ino: 42,
                ..Default::default()
            },
            Duration::from_secs(1),
        ))
    }
    fn setattr(&self, by: &Caller, node: NodeId, change: &SetAttr) -> Result<(wire::Attr, Duration)> {
        self.note(format!("setattr {} {} {change:?}", who(by), node.0))?;
        Ok((attr(), Duration::ZERO))
    }
    fn readlink(&self, by: &Caller, node: NodeId) -> Result<Vec<u8>> {
        self.note(format!("readlink {} {}", who(by), node.0))?;
        Ok(b"../target".to_vec())
    }
    fn symlink(&self, by: &Caller, parent: NodeId, name: Name<'_>, target: &CStr) -> Result<Entry> {
        self.note(format!("symlink {} {} {} {target:?}", who(by), parent.0, text(name)))?;
        Ok(entry())
    }
    fn mknod(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        self.note(format!("mknod {} {} {} {}", who(by), parent.0, text(name), how(create)))?;
        Ok(entry())
    }
    fn mkdir(&self, by: &Caller, parent: NodeId, name: Name<'_>, create: &Create) -> Result<Entry> {
        self.note(format!("mkdir {} {} {} {}", who(by), parent.0, text(name), how(create)))?;
        Ok(entry())
    }
    fn unlink(&self, by: &Caller, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.note(format!("unlink {} {} {}", who(by), parent.0, text(name)))
    }
    fn rmdir(&self, by: &Caller, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.note(format!("rmdir {} {} {}", who(by), parent.0, text(name)))
    }
    fn rename(&self, by: &Caller, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), flags: u32) -> Result<()> {
        let (from, to) = ((from.0.0, text(from.1)), (to.0.0, text(to.1)));
        self.note(format!("rename {} {from:?} {to:?} {flags:x}", who(by)))
    }
    fn link(&self, by: &Caller, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Entry> {
        self.note(format!("link {} {} {} {}", who(by), node.0, parent.0, text(name)))?;
        Ok(entry())
    }
    fn open(&self, by: &Caller, node: NodeId, flags: u32, kill_suid_gid: bool) -> Result<Opened> {
        self.note(format!("open {} {} {flags:x} {kill_suid_gid}", who(by), node.0))?;
        Ok(Opened {
            handle: Handle(77),
            flags: wire::FOPEN_KEEP_CACHE,
        })
    }
    fn create(
        &self,
        by: &Caller,
        parent: NodeId,
        name: Name<'_>,
        create: &Create,
        kill_suid_gid: bool,
    ) -> Result<(Entry, Opened)> {
        let (by, create) = (who(by), how(create));
        self.note(format!(
            "create {by} {} {} {create} {kill_suid_gid}",
            parent.0,
            text(name)
        ))?;
        Ok((
            entry(),
            Opened {
                handle: Handle(77),
                flags: 0,
            },
        ))
    }
    fn tmpfile(&self, by: &Caller, parent: NodeId, create: &Create) -> Result<(Entry, Opened)> {
        self.note(format!("tmpfile {} {} {}", who(by), parent.0, how(create)))?;
        Ok((
            entry(),
            Opened {
                handle: Handle(77),
                flags: 0,
            },
        ))
    }
    fn read(&self, node: NodeId, handle: Handle, offset: u64, len: u32, out: &mut Writer<'_>) -> Result<()> {
        assert_eq!(out.remaining(), len as usize, "no more room than was asked for");
        let part = &b"contents"[..(len as usize).min(8)];
        out.write_all(part).unwrap();
        // With an error after the first bytes: the reply must be the error alone.
        self.note(format!("read {} {} {offset} {len}", node.0, handle.0))
    }
    fn write(&self, by: &Caller, node: NodeId, to: &WriteTo, data: &mut Reader<'_>) -> Result<u32> {
        let data = data.read_to_vec(data.remaining()).unwrap();
        assert_eq!(data.len(), to.len as usize);
        let (to, data) = (
            format!("{} {} {:x} {:x}", to.handle.0, to.offset, to.flags, to.open_flags),
            data.escape_ascii(),
        );
        self.note(format!("write {} {} {to} {data}", who(by), node.0))?;
        Ok(data.count() as u32)
    }
    fn flush(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.note(format!("flush {} {}", node.0, handle.0))
    }
    fn release(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.note(format!("release {} {}", node.0, handle.0))
    }
    fn fsync(&self, node: NodeId, handle: Handle, data_only: bool) -> Result<()> {
        self.note(format!("fsync {} {} {data_only}", node.0, handle.0))
    }
    fn syncfs(&self, node: NodeId) -> Result<()> {
        self.note(format!("syncfs {}", node.0))
    }
    fn opendir(&self, by: &Caller, node: NodeId, flags: u32) -> Result<Opened> {
        self.note(format!("opendir {} {} {flags:x}", who(by), node.0))?;
        Ok(Opened {
            handle: Handle(78),
            flags: wire::FOPEN_CACHE_DIR,
        })
    }
    fn readdir(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        offset: u64,
        plus: bool,
        sink: &mut dyn DirectorySink,
    ) -> Result<()> {
        for (index, name) in [c".", c"eight_by", c"last one"].into_iter().enumerate() {
            let (inode, offset) = (100 + index as u64, 1 + index as u64);
            let fits = sink.fits(name);
            let added = match index {
                _ if !plus => sink.add(name, inode, 4, offset),
                0 => sink.add_plus(name, inode, 4, offset, None),
                _ => sink.add_plus(name, inode, 4, offset, Some(&entry())),
            };
            assert_eq!(fits, added, "`fits` foretells `add`");
        }
        self.note(format!("readdir {} {} {} {offset} {plus}", who(by), node.0, handle.0))
    }
    fn releasedir(&self, node: NodeId, handle: Handle) -> Result<()> {
        self.note(format!("releasedir {} {}", node.0, handle.0))
    }
    fn fsyncdir(&self, node: NodeId, handle: Handle, data_only: bool) -> Result<()> {
        self.note(format!("fsyncdir {} {} {data_only}", node.0, handle.0))
    }
    fn statfs(&self, node: NodeId) -> Result<wire::Statfs> {
        self.note(format!("statfs {}", node.0))?;
        Ok(wire::Statfs {
            blocks: 1000,
            bfree: 10,
            bsize: 4096,
            namelen: 255,
            ..Default::default()
        })
    }
    fn access(&self, by: &Caller, node: NodeId, mask: u32) -> Result<()> {
        self.note(format!("access {} {} {mask:o}", who(by), node.0))
    }
    fn setxattr(
        &self,
        by: &Caller,
        node: NodeId,
        name: &CStr,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        let value = value.escape_ascii();
        self.note(format!(
            "setxattr {} {} {name:?} {value} {flags:x} {kill_sgid}",
            who(by),
            node.0
        ))
    }
    fn getxattr(&self, by: &Caller, node: NodeId, name: &CStr, size: u32) -> Result<XattrReply> {
        self.note(format!("getxattr {} {} {name:?} {size}", who(by), node.0))?;
        Ok(if size == 0 {
            XattrReply::Size(5)
        } else {
            XattrReply::Value(b"value".to_vec())
        })
    }
    fn listxattr(&self, by: &Caller, node: NodeId, size: u32) -> Result<XattrReply> {
        self.note(format!("listxattr {} {} {size}", who(by), node.0))?;
        Ok(XattrReply::Value(b"user.a\0user.b\0".to_vec()))
    }
    fn removexattr(&self, by: &Caller, node: NodeId, name: &CStr) -> Result<()> {
        self.note(format!("removexattr {} {} {name:?}", who(by), node.0))
    }
    fn fallocate(&self, by: &Caller, node: NodeId, handle: Handle, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.note(format!(
            "fallocate {} {} {} {mode:x} {offset} {len}",
            who(by),
            node.0,
            handle.0
        ))
    }
    fn lseek(&self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        self.note(format!("lseek {} {} {offset} {whence}", node.0, handle.0))?;
        Ok(1 << 40)
    }
    fn copy_file_range(&self, by: &Caller, range: &CopyRange) -> Result<u64> {
        self.note(format!("copy_file_range {} {range:?}", who(by)))?;
        Ok(range.len)
    }
    fn ioctl(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        command: u32,
        input: &[u8],
        out_size: u32,
    ) -> Result<Vec<u8>> {
        let input = input.escape_ascii();
        self.note(format!(
            "ioctl {} {} {} {command:x} {input} {out_size}",
            who(by),
            node.0,
            handle.0
        ))?;
        Ok(b"flag"[..(out_size as usize).min(4)].to_vec())
    }
}
