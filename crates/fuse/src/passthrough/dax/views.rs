//! Views: files of a private FUSE mount that appear endless and whose mappings are mappings of a host file.
//!
//! QEMU (11.1) maps nothing behind the end of a file, and takes an empty file for one to be filled. mmap(2) has no
//! such limit, and Linux as a guest maps 2 MiB at a time, over the end of most files. Therefore the front end gets a
//! view in place of the file. The view's length is nearly 2^63, and the kernel passes its mmap through to the file
//! itself (FUSE passthrough, Linux 6.9). Both use the same page cache.
//!
//! The mount is attached nowhere: no path leads to it, and it goes away with its last descriptor or mapping. A view
//! has a name only while it is being opened, to match the file with the open(2). It lives as long as something refers
//! to it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, memfd_create, openat, unlinkat};
use rustix::io::IoSlice;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::device::FuseDevice;
use super::error::ViewsError;
use super::serve;

/// Makes views.
#[derive(Debug)]
pub(crate) struct Views {
    root: OwnedFd,
    next: Mutex<Next>,
}

/// What one thread at a time uses, so that files arrive in the order in which they are opened.
#[derive(Debug)]
struct Next {
    number: u64,
    files: OwnedFd,
}

impl Views {
    /// Mounts the file system on `device` and starts the thread that serves it.
    pub(crate) fn new(device: FuseDevice) -> Result<Views, ViewsError> {
        let FuseDevice {
            opened,
            at_thread_start,
        } = device;
        let device = opened.map_err(ViewsError::Device)?;
        // A core dump waits for all threads of the process. One that opens a view would wait for the thread that serves it, which
        // would wait for the dump: the process would stay for ever.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| ViewsError::Thread(error.into()))?;
        let root = mount(device.as_fd()).map_err(|error| ViewsError::Mount(error.into()))?;
        let (files, taken) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| ViewsError::Thread(error.into()))?;
        let (ready, started) = mpsc::channel();
        let (serving, taking) = (device.as_raw_fd(), taken.as_raw_fd());
        thread::Builder::new()
            .name("views".into())
            .spawn(move || serve::run(serving, taking, at_thread_start, &ready))
            .map_err(ViewsError::Thread)?;
        match started.recv() {
            // The thread has descriptors of its own by now, so that these go and the connection ends with the thread.
            Ok(Ok(())) => drop((device, taken)),
            Ok(Err(error)) => return Err(error),
            Err(mpsc::RecvError) => return Err(ViewsError::Thread(io::ErrorKind::BrokenPipe.into())),
        }
        let views = Views {
            root,
            next: Mutex::new(Next {
                number: serve::ROOT + 1,
                files,
            }),
        };
        memfd_create("view", MemfdFlags::CLOEXEC)
            .and_then(|file| views.view(file.as_fd(), true))
            .map_err(|error| ViewsError::Trial(error.into()))?;
        Ok(views)
    }

    /// A view of the regular file `file`, open for writing too if `writable`, as `file` must be then. ELOOP: it lies on file systems
    /// that are stacked too deep.
    pub(crate) fn view(&self, file: BorrowedFd<'_>, writable: bool) -> rustix::io::Result<OwnedFd> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = next.number;
        next.number += 1;
        send(next.files.as_fd(), number, file)?;
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let name = number.to_string();
        let view = openat(&self.root, &name, access | OFlags::CLOEXEC, Mode::empty())?;
        // Without a name the kernel forgets it as soon as nothing refers to it.
        unlinkat(&self.root, &name, AtFlags::empty())?;
        Ok(view)
    }
}

/// Mounts it, attached nowhere. All who get a view may use it (allow_other): the front end is another user's process.
fn mount(device: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let device = device.as_raw_fd().to_string();
    for (key, value) in [
        ("source", "innkeeper"),
        ("fd", &device),
        ("rootmode", "40700"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Gives the serving thread the file of view `number`: it has a table of descriptors of its own.
fn send(to: BorrowedFd<'_>, number: u64, file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    let number = number.to_ne_bytes();
    sendmsg(to, &[IoSlice::new(&number)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

#[cfg(test)]
mod tests;
