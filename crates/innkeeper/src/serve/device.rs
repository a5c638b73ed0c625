//! The traits of a device's subcommand and of its `boot` options.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use backend::Device;
use confinement::{Action, Declaration, Maps};
use process::socket::SocketFile;

use super::args::{Rings, Serving};
use super::error::Error;
use super::exercise::Exercise;
use super::qemu::QemuDevice;
use super::threads::Threads;

/// A subcommand that serves a device.
pub(crate) trait Service {
    /// Where and how it is served.
    fn serving(&self) -> &Serving;

    /// Refuses what cannot be served, ahead of everything else, in words that tell what to do about it.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Refuses a command line that has not one socket for each machine, in words that tell how many belong there.
    fn check_sockets(&self) -> Result<(), String> {
        match self.serving().endpoint.count() {
            1 => Ok(()),
            _ => {
                Err("one socket is for one virtual machine, and this device serves one at a time: give it once".into())
            }
        }
    }

    /// What the device needs of the host once it serves. All else is given up.
    fn declaration(&self) -> Result<Declaration, Error>;

    /// Which users and groups the namespace of an ordinary user has, if that was asked for.
    fn maps(&self) -> Maps {
        Maps::default()
    }

    /// Opens what the device needs and cannot reach once the daemon is confined.
    fn open(&self) -> Result<Box<dyn Opened + '_>, Error>;

    /// How `innkeeper check` uses all of the device, so that it makes every system call that it declares. `None`: it does not try this
    /// device out.
    fn exercise(&self) -> Option<Exercise> {
        None
    }

    /// The device of QEMU that takes it.
    fn qemu(&self) -> QemuDevice;

    /// What the user is told once it is served: the command line of QEMU that starts a machine with it, and what to do in the guest.
    /// `open_files` is the limit of open files.
    fn announcement(&self, qemu: &str, open_files: u64) -> String;
}

/// A device for which everything is open that lies outside of the sandbox.
pub(crate) trait Opened {
    /// Creates the sockets on which the device itself listens, and that are removed at the end.
    fn listen(&mut self) -> Result<Vec<SocketFile>, Error> {
        Ok(Vec::new())
    }

    /// Makes the device. `inside` has what the sandbox leaves of the host, and each thread that is started confines itself by `threads`.
    fn make(self: Box<Self>, inside: Inside, threads: &Threads) -> Result<Made, Error>;
}

/// What a sandbox leaves of the host.
pub(crate) struct Inside {
    /// Where the directory of [`Declaration::shared`] lies.
    pub(crate) shared: Option<PathBuf>,
    /// `/proc/self/fd`.
    pub(crate) proc_self_fd: OwnedFd,
    /// Whether files can be opened by their handles.
    pub(crate) opens_handles: bool,
}

/// Devices that are made and not served yet.
pub(crate) struct Made {
    /// One for each socket.
    pub(crate) devices: Vec<Box<dyn Device>>,
    /// To be called when they are served no more.
    pub(crate) at_end: Option<Box<dyn FnOnce()>>,
}

impl Made {
    /// They are served no more.
    pub(crate) fn end(self) {
        if let Some(at_end) = self.at_end {
            at_end();
        }
    }
}

/// The options of `boot` that give its machine devices of one kind.
pub(crate) trait Attach {
    /// Refuses what cannot be attached, ahead of everything else. `root` is the directory that becomes the guest's root.
    fn check(&self, _root: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// The modules that a guest's kernel needs for these devices, if it has them not built in.
    fn drivers(&self) -> &'static [&'static str];

    /// Makes the devices that were asked for. `seccomp` is what becomes of a thread that makes another system call than its device needs.
    fn attach(&self, root: &Path, rings: Rings, seccomp: Action) -> Result<Vec<Attachment>, Error>;
}

/// A device for the machine of `boot`.
pub(crate) struct Attachment {
    pub(crate) made: Made,
    pub(crate) qemu: QemuDevice,
    /// Made from what [`Service::declaration`] would be.
    pub(crate) threads: Threads,
}
