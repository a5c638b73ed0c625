//! An open image: a raw file or a block device.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guestmem::{Reader, RwFlags, Writer};
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, StatxFlags, fallocate, fdatasync, fstat,
    ioctl_blkpbszget, ioctl_blksszget, open, seek, stat, statx,
};
use rustix::io::{Errno, pread, pwritev2, retry_on_intr};
use tracing::warn;

use crate::pages::Pages;
use crate::{Error, lock};

/// Bytes of a sector, the unit of all sizes and positions of a disk (VIRTIO 1.1 5.2).
pub const SECTOR: u64 = 512;

/// Bytes that go through a buffer of our own at a time.
const BOUNCED: usize = 1 << 20;

/// What to open, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// A raw image file or a block device.
    pub path: PathBuf,
    /// Refuse writes, and tolerate other readers.
    pub read_only: bool,
    /// Bypass the host's page cache (O_DIRECT).
    pub direct: bool,
}

/// An open image, locked against other writers until it is dropped.
#[derive(Debug)]
pub struct Image {
    /// Opened with the page cache. It has the lock.
    file: Arc<OwnedFd>,
    direct: Option<Direct>,
    size: u64,
    block: u32,
    physical: u32,
    is_read_only: bool,
}

/// The image opened without the page cache.
#[derive(Debug)]
struct Direct {
    file: Arc<OwnedFd>,
    /// Positions and lengths must be multiples of this.
    alignment: u64,
}

impl Image {
    /// Opens and locks an image. A writable block device must not be mounted.
    pub fn open(options: &ImageOptions) -> Result<Image, Error> {
        let ImageOptions {
            path,
            read_only,
            direct,
        } = options;
        // Ahead of opening, which would wait at a FIFO.
        let kind = check_kind(path)?;
        let access = if *read_only { OFlags::RDONLY } else { OFlags::RDWR };
        // The kernel refuses a block device that is mounted.
        let alone = kind == FileType::BlockDevice && !read_only;
        let flags = access | OFlags::CLOEXEC | if alone { OFlags::EXCL } else { OFlags::empty() };
        let file = open(path, flags, Mode::empty()).map_err(|errno| refused(path, errno))?;
        match lock::wait(file.as_fd(), !read_only) {
            Ok(true) => {}
            Ok(false) => return Err(Error::InUse { path: path.clone() }),
            Err(error) => warn!(
                "cannot lock {}: {error}; nothing keeps other programs from writing to it",
                path.display()
            ),
        }
        let other = |errno: Errno| Error::Open {
            path: path.clone(),
            source: errno.into(),
        };
        let stat = fstat(&file).map_err(other)?;
        let (size, block, physical) = if kind == FileType::BlockDevice {
            (
                seek(&file, SeekFrom::End(0)).map_err(other)?,
                ioctl_blksszget(&file).map_err(other)?,
                ioctl_blkpbszget(&file).map_err(other)?,
            )
        } else {
            (stat.st_size as u64, SECTOR as u32, stat.st_blksize as u32)
        };
        if !size.is_multiple_of(SECTOR) {
            return Err(Error::Length {
                path: path.clone(),
                length: size,
            });
        }
        let direct = if *direct {
            Some(Direct::open(path, access)?)
        } else {
            None
        };
        Ok(Image {
            file: Arc::new(file),
            direct,
            size,
            block,
            physical: physical.max(block),
            is_read_only: *read_only,
        })
    }

    /// Size in bytes, a multiple of [`SECTOR`].
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of a logical block: the smallest unit that is not slow to write.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Bytes of a physical block, or of a block of the file system; at least those of a logical block.
    #[must_use]
    pub fn physical(&self) -> u32 {
        self.physical
    }

    /// Whether it was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// The file for a transfer of `length` bytes at `offset`. A transfer that is not aligned for direct I/O takes the page cache.
    #[must_use]
    pub fn file_for(&self, offset: u64, length: usize) -> &Arc<OwnedFd> {
        match self.direct_for(offset, length) {
            Some(direct) => &direct.file,
            None => &self.file,
        }
    }

    /// Reads exactly `length` bytes at `offset` into guest memory.
    pub fn read(&self, offset: u64, length: usize, writer: &mut Writer<'_>) -> io::Result<()> {
        let file = self.file_for(offset, length);
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            match writer.read_from(file.as_fd(), at, length - done, RwFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The guest's buffers are not aligned.
                Err(error) if is_misaligned(&error) && self.direct_for(offset, length).is_some() => {
                    return self.read_bounced(file, at, length - done, writer);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes exactly `length` bytes of guest memory at `offset`. If `durable`, they are on stable storage afterwards.
    pub fn write(&self, offset: u64, length: usize, reader: &mut Reader<'_>, durable: bool) -> io::Result<()> {
        let file = self.file_for(offset, length);
        let flags = write_flags(durable);
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            match reader.write_to(file.as_fd(), at, length - done, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_misaligned(&error) && self.direct_for(offset, length).is_some() => {
                    return self.write_bounced(file, at, length - done, reader, flags);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts all finished writes on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        Ok(retry_on_intr(|| fdatasync(&self.file))?)
    }

    /// Gives up the contents of a range, and its space on the host where that can be done.
    pub fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.punch(offset, length) {
            Err(error) if !is_unsupported(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a range read as zeros. With `unmap` its space may be given up.
    pub fn write_zeros(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()> {
        if unmap {
            match self.punch(offset, length) {
                Err(error) if is_unsupported(&error) => {}
                done => return done,
            }
        }
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        match self.allocate(flags, offset, length) {
            Err(error) if is_unsupported(&error) => self.write_zero_bytes(offset, length),
            done => done,
        }
    }

    fn direct_for(&self, offset: u64, length: usize) -> Option<&Direct> {
        let is_aligned = |direct: &&Direct| {
            offset.is_multiple_of(direct.alignment) && (length as u64).is_multiple_of(direct.alignment)
        };
        self.direct.as_ref().filter(is_aligned)
    }

    fn read_bounced(
        &self,
        file: &OwnedFd,
        mut offset: u64,
        mut left: usize,
        writer: &mut Writer<'_>,
    ) -> io::Result<()> {
        let mut pages = Pages::zeroed(left.min(BOUNCED));
        while left > 0 {
            let wanted = left.min(BOUNCED);
            let space = &mut pages.bytes_mut()[..wanted];
            let read = retry_on_intr(|| pread(file, &mut *space, offset))?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            writer.write_all(&pages.bytes()[..read])?;
            offset += read as u64;
            left -= read;
        }
        Ok(())
    }

    fn write_bounced(
        &self,
        file: &OwnedFd,
        mut offset: u64,
        mut left: usize,
        reader: &mut Reader<'_>,
        flags: RwFlags,
    ) -> io::Result<()> {
        let mut pages = Pages::zeroed(left.min(BOUNCED));
        while left > 0 {
            let now = left.min(BOUNCED);
            reader.read_exact(&mut pages.bytes_mut()[..now])?;
            write_all(file, offset, &pages.bytes()[..now], flags)?;
            offset += now as u64;
            left -= now;
        }
        Ok(())
    }

    fn write_zero_bytes(&self, mut offset: u64, mut left: u64) -> io::Result<()> {
        let zeros = Pages::zeroed(left.min(BOUNCED as u64) as usize);
        while left > 0 {
            let now = left.min(BOUNCED as u64) as usize;
            write_all(&self.file, offset, &zeros.bytes()[..now], RwFlags::empty())?;
            offset += now as u64;
            left -= now as u64;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.allocate(flags, offset, length)
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        Ok(retry_on_intr(|| fallocate(&self.file, flags, offset, length))?)
    }
}

impl Direct {
    fn open(path: &Path, access: OFlags) -> Result<Direct, Error> {
        let refused = |errno: Errno| Error::Direct {
            path: path.into(),
            source: errno.into(),
        };
        let flags = access | OFlags::CLOEXEC | OFlags::DIRECT;
        let file = open(path, flags, Mode::empty()).map_err(refused)?;
        // Linux 6.1; 0 where the file system does not say.
        let alignment =
            statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).map_or(0, |statx| statx.stx_dio_offset_align);
        let alignment = if alignment == 0 { 4096 } else { u64::from(alignment) };
        Ok(Direct {
            file: Arc::new(file),
            alignment,
        })
    }
}

/// The flags of a write.
pub(crate) fn write_flags(durable: bool) -> RwFlags {
    if durable { RwFlags::DSYNC } else { RwFlags::empty() }
}

fn write_all(file: &OwnedFd, mut offset: u64, mut bytes: &[u8], flags: RwFlags) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry_on_intr(|| pwritev2(file, &[io::IoSlice::new(bytes)], offset, flags))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
        }
    }
    Ok(())
}

fn check_kind(path: &Path) -> Result<FileType, Error> {
    let path = path.to_path_buf();
    let kind = match stat(&path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(errno) => return Err(refused(&path, errno)),
    };
    match kind {
        FileType::RegularFile | FileType::BlockDevice => Ok(kind),
        FileType::Directory => Err(Error::Directory { path }),
        _ => Err(Error::Special { path }),
    }
}

fn refused(path: &Path, errno: Errno) -> Error {
    let (path, source) = (path.to_path_buf(), errno.into());
    match errno {
        Errno::NOENT => Error::Missing { path },
        Errno::BUSY => Error::InUse { path },
        Errno::ROFS | Errno::TXTBSY | Errno::PERM => Error::ReadOnly { path, source },
        Errno::ACCESS if open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).is_ok() => {
            Error::ReadOnly { path, source }
        }
        _ => Error::Open { path, source },
    }
}

fn is_misaligned(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// Whether the file system cannot do this at all, or not to such a range.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS | libc::ENODEV)
    )
}
