//! Open files: creation, reads, writes and sync.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use guestmem::{Reader, RwFlags};
use rustix::fs::{
    FallocateFlags, FileType, OFlags, SeekFrom, copy_file_range, fallocate, fcntl_getfl, fdatasync, fsync, seek, syncfs,
};
use rustix::io::fcntl_dupfd_cloexec;

use super::budget::Permit;
use super::credentials::WriterGuard;
use super::entries::{Found, mode};
use super::handle::{OpenFile, Opened as _};
use super::inode::Node;
use super::opening::{CheckedPath, OpenFd, PathFd};
use super::room::Room;
use super::{CacheMode, Passthrough};
use crate::cause::{self, HostResult as _};
use crate::check::Check;
use crate::fs::{Caller, CopyRange, Create, Entry, Errno, Handle, Name, NodeId, Opened, Result, WriteTo};
use crate::sys;
use crate::wire::{self, InitFlags};

/// Others on the host may remove and make a name between our two looks at it, but hardly this often.
const CREATE_ATTEMPTS: u32 = 16;

/// A new file, open, with what it takes of the budgets.
type Created<'r> = (OpenFd, Permit, Room<'r>);

impl Passthrough {
    pub(super) fn open_node(&self, node: &Arc<Node>, flags: u32, kill_suid_gid: bool) -> Result<Opened> {
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::EISDIR.rule("a directory is opened by OPENDIR")),
            FileType::Symlink => return Err(Errno::ELOOP.rule("a symbolic link is never opened")),
            _ if !Check::Kind.is_on() => {}
            // To open a device or fifo on the host would act on the host; the guest opens its own.
            _ => return Err(Errno::ENXIO.rule("devices, fifos and sockets are never opened on the host")),
        }
        let host = self.host_flags(flags)?;
        // Before anything is truncated.
        let permit = self.permit()?;
        let fd = node.descriptor()?;
        let path = CheckedPath::of(&fd)?;
        let _fsetid = kill_suid_gid
            .then(|| self.credentials.without_fsetid(self.credentials.kill_by(path.stat())))
            .transpose()?;
        let mut opened = path.open(&self.proc, host);
        if opened.as_ref().err() == Some(&Errno::EPERM) && flags & libc::O_APPEND as u32 != 0 {
            // Append-only files (chattr +a) open in no other way.
            opened = path.open(&self.proc, host | OFlags::APPEND);
        }
        Ok(self.install(Arc::clone(node), opened?, permit))
    }

    /// What of the guest's flags reaches the host's open(2). Not O_APPEND and O_SYNC, which each write brings along (the guest may
    /// write back pages of a file opened with O_APPEND, and those have their place); not O_NOATIME, which would bypass the owner
    /// check; nothing that acts on names.
    fn host_flags(&self, flags: u32) -> Result<OFlags> {
        let flags = OFlags::from_bits_retain(flags);
        let mut host = flags & (OFlags::RWMODE | OFlags::TRUNC);
        if !host.is_empty() {
            self.writable()?; // O_RDONLY is 0
        }
        if self.has(InitFlags::WRITEBACK_CACHE) && flags & OFlags::RWMODE == OFlags::WRONLY {
            host = host.difference(OFlags::RWMODE) | OFlags::RDWR; // the guest reads pages that it writes in part
        }
        if self.options.allow_direct_io {
            host |= flags & OFlags::DIRECT;
        }
        Ok(host)
    }

    fn install(&self, node: Arc<Node>, fd: OpenFd, permit: Permit) -> Opened {
        let manners = self.mounts.manners(node.key.place.mount, fd.as_fd());
        let mut flags = match self.options.cache {
            CacheMode::Never | CacheMode::Metadata => wire::FOPEN_DIRECT_IO | wire::FOPEN_PARALLEL_DIRECT_WRITES,
            CacheMode::Auto => 0,
            CacheMode::Always => wire::FOPEN_KEEP_CACHE,
        };
        if !manners.flushes {
            flags |= wire::FOPEN_NOFLUSH;
        }
        let direct = self.options.allow_direct_io && fcntl_getfl(&fd).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        let handle = self.files.insert(OpenFile::new(node, fd, permit, manners, direct));
        Opened { handle, flags }
    }

    pub(super) fn create_file(
        &self,
        by: &Caller,
        parent: NodeId,
        name: Name<'_>,
        create: &Create,
        kill_suid_gid: bool,
    ) -> Result<(Entry, Opened)> {
        let parent = self.node(parent)?;
        let exclusive = create.flags & libc::O_EXCL as u32 != 0;
        for _ in 0..CREATE_ATTEMPTS {
            // Always exclusive, so that nothing that is already there, least of all a link or fifo, is opened by its name.
            let made = self.create_new(by, &parent, name, create);
            match made {
                Ok((fd, permit, room)) => return self.adopt_created(&parent, (fd, permit, room), Some(name)),
                Err(Errno::EEXIST | Errno::EROFS) if !exclusive => {}
                Err(error) => return Err(error),
            }
            let refusal = cause::set_aside();
            let found = match self.find(&parent, name, None) {
                Err(Errno::ENOENT) if made.err() == Some(Errno::EROFS) => {
                    refusal.back();
                    return Err(Errno::EROFS);
                }
                Err(Errno::ENOENT) => continue,
                found => found?,
            };
            match self.open_node(&found.node, create.flags, kill_suid_gid) {
                Ok(opened) => return Ok((found.entry, opened)),
                Err(error) => {
                    self.inodes.forget(found.node.id, 1);
                    return Err(error);
                }
            }
        }
        Err(Errno::ESTALE.rule("others on the host keep making and removing the name"))
    }

    fn create_new(&self, by: &Caller, parent: &Arc<Node>, name: Name<'_>, create: &Create) -> Result<Created<'_>> {
        self.writable()?;
        let permit = self.permit()?;
        let flags = self.host_flags(create.flags)?.difference(OFlags::TRUNC);
        let (fd, room) = self.make(by, parent, create.umask, |directory| {
            OpenFd::create(directory, name, flags, mode(create))
        })?;
        Ok((fd, permit, room))
    }

    pub(super) fn create_unnamed(&self, by: &Caller, parent: NodeId, create: &Create) -> Result<(Entry, Opened)> {
        self.writable()?;
        let parent = self.node(parent)?;
        let exclusive = OFlags::from_bits_retain(create.flags) & OFlags::EXCL; // may never get a name
        let flags = self.host_flags(create.flags)?.difference(OFlags::TRUNC);
        let permit = self.permit()?;
        let (fd, room) = self.make(by, &parent, create.umask, |directory| {
            OpenFd::create_unnamed(directory, flags | exclusive, mode(create))
        })?;
        self.adopt_created(&parent, (fd, permit, room), None)
    }

    fn adopt_created(
        &self,
        parent: &Arc<Node>,
        (fd, permit, room): Created<'_>,
        name: Option<Name<'_>>,
    ) -> Result<(Entry, Opened)> {
        // By way of the open file: its name may mean something else by now.
        let path = || Ok(Arc::new(PathFd::of_open(&fd, &self.proc)?));
        let Found { entry, node } = self.adopt(parent, fd.as_fd(), name, Some(room), path)?;
        Ok((entry, self.install(node, fd, permit)))
    }

    pub(super) fn write_file(&self, by: &Caller, node: NodeId, to: &WriteTo, data: &mut Reader<'_>) -> Result<u32> {
        let file = self.files.get(node, to.handle)?;
        let flags = self.write_flags(to);
        let pages = to.flags & wire::WRITE_CACHE != 0;
        let fd = if pages {
            file.for_pages(|opened| {
                let permit = self.permit()?;
                Ok((opened.again(&self.proc, OFlags::WRONLY)?, permit))
            })?
        } else {
            file.fd()
        };
        // Pages that the guest writes back are of nobody it could name.
        let by = (!pages).then_some(by.uid);
        let kill_suid_gid = to.flags & wire::WRITE_KILL_SUIDGID != 0;
        let _writer = self.become_writer(by, kill_suid_gid.then_some(file.fd()))?;
        // Linux looks at the error of pages written back, never at the count: behind a short one the rest would be lost.
        let may_be_short = !pages;
        let len = to.len as usize;
        let mut done = 0;
        while done < len {
            let at = to.offset.saturating_add(done as u64);
            match data.write_to(fd, at, len - done, flags) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if may_be_short && done > 0 => break,
                failed => drop(failed.of(|| format!("pwritev2(file, {len} bytes, at {at})"))?),
            }
        }
        Ok(done as u32)
    }

    /// Pages written back have their place and are synced by the guest. With the writeback cache it knows where the end is in any case.
    fn write_flags(&self, to: &WriteTo) -> RwFlags {
        if to.flags & wire::WRITE_CACHE != 0 {
            return RwFlags::empty();
        }
        let open = OFlags::from_bits_retain(to.open_flags);
        let mut flags = RwFlags::empty();
        let knows_the_end = self.has(InitFlags::WRITEBACK_CACHE);
        flags.set(RwFlags::APPEND, open.contains(OFlags::APPEND) && !knows_the_end);
        flags.set(RwFlags::SYNC, open.contains(OFlags::SYNC));
        flags.set(RwFlags::DSYNC, open.contains(OFlags::DSYNC));
        flags
    }

    pub(super) fn flush_file(&self, node: NodeId, handle: Handle) -> Result<()> {
        let file = self.files.get(node, handle)?;
        if !file.flushes {
            return Ok(());
        }
        // close(2) of a second descriptor is the only way to the file system's flush.
        match fcntl_dupfd_cloexec(file.fd(), 0) {
            Ok(copy) => sys::close(copy).of(|| "close(copy of file)".into()),
            // Out of descriptors, a close in the guest must not fail: sync is more than was asked for.
            Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                fdatasync(file.fd()).of(|| "fdatasync(file)".into())
            }
            failed => failed.of(|| "fcntl(file, F_DUPFD_CLOEXEC)".into()).map(drop),
        }
    }

    pub(super) fn sync_file_system(&self, node: NodeId) -> Result<()> {
        let node = self.node(node)?;
        let path = node.descriptor()?;
        let real = match node.kind {
            FileType::Directory => OpenFd::directory(&path)?,
            FileType::RegularFile => CheckedPath::of(&path)?.open(&self.proc, OFlags::RDONLY)?,
            _ => return Err(Errno::EINVAL.rule("SYNCFS takes a directory or a file")),
        };
        syncfs(&real).of(|| "syncfs(node)".into())
    }

    pub(super) fn allocate(
        &self,
        by: &Caller,
        node: NodeId,
        handle: Handle,
        mode: u32,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let file = self.files.get(node, handle)?;
        let _writer = self.become_writer(Some(by.uid), (by.uid != 0).then_some(file.fd()))?;
        fallocate(file.fd(), FallocateFlags::from_bits_retain(mode), offset, len)
            .of(|| format!("fallocate(file, {mode:#x}, {offset}, {len})"))
    }

    pub(super) fn copy_range(&self, by: &Caller, range: &CopyRange) -> Result<u64> {
        if range.flags != 0 {
            return Err(Errno::EINVAL.rule("copy_file_range(2) knows no flags"));
        }
        let from = self.files.get(range.from.0, range.from.1)?;
        let to = self.files.get(range.to.0, range.to.1)?;
        let (mut read_at, mut write_at) = (range.from.2, range.to.2);
        let len = usize::try_from(range.len).unwrap_or(usize::MAX);
        let _writer = self.become_writer(Some(by.uid), (by.uid != 0).then_some(to.fd()))?;
        let copied = copy_file_range(from.fd(), Some(&mut read_at), to.fd(), Some(&mut write_at), len).of(|| {
            let (read_at, write_at) = (range.from.2, range.to.2);
            format!("copy_file_range(file, {read_at}, to file, {write_at}, {len})")
        })?;
        Ok(copied as u64)
    }

    /// Who drops the privileges of a file gives it as `kill`. FALLOCATE and COPY_FILE_RANGE carry no KILL_SUIDGID flag, so all but
    /// root count as unprivileged there.
    fn become_writer(&self, by: Option<u32>, kill: Option<BorrowedFd<'_>>) -> Result<WriterGuard> {
        // Blocks may be kept for a group of the daemon's as well.
        self.prepare_thread()?;
        self.credentials
            .become_writer(by, kill.map(|file| self.credentials.kill(file)))
    }

    pub(super) fn seek_data(&self, node: NodeId, handle: Handle, offset: u64, whence: u32) -> Result<u64> {
        let file = self.files.get(node, handle)?;
        // Linux (fuse_lseek) asks without having written its pages back, and takes ENOSYS for "all is data". Elsewhere the
        // asker's own open(2) has done that.
        if self.has(InitFlags::WRITEBACK_CACHE) || self.options.cache == CacheMode::Always {
            return Err(
                Errno::ENOSYS.rule("the guest may have data that the host has not (--cache always, --writeback)")
            );
        }
        // The guest keeps file positions; ours is never used, so moving it is harmless.
        let to = match whence as i32 {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::EINVAL.rule("LSEEK takes SEEK_DATA and SEEK_HOLE alone")),
        };
        seek(file.fd(), to).of(|| format!("lseek(file, {to:?})"))
    }
}

/// fsync(2) or fdatasync(2) of an open file or directory.
pub(super) fn sync(opened: &impl super::handle::Opened, data_only: bool) -> Result<()> {
    if data_only {
        fdatasync(opened.fd()).of(|| "fdatasync(file)".into())
    } else {
        fsync(opened.fd()).of(|| "fsync(file)".into())
    }
}
