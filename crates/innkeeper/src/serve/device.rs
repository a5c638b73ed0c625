//! What a device's subcommand and its options of `boot` have to say.

use std::path::Path;

use backend::Device;
use rustix::thread::CapabilitySet;

use super::args::{Rings, Serving};
use super::error::Error;
use super::qemu::QemuDevice;

/// A subcommand that serves a device.
pub(crate) trait Service {
    /// Where and how it is served.
    fn serving(&self) -> &Serving;

    /// Refuses what cannot be served, ahead of everything else, in words that tell what to do about it.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The capabilities that the device needs, of those that root has. All others are given up.
    fn keeps(&self) -> CapabilitySet {
        CapabilitySet::empty()
    }

    /// Those that it needs to be made, if they are more. They are given up before it is served.
    fn keeps_to_make(&self) -> CapabilitySet {
        self.keeps()
    }

    /// Makes the device.
    fn make(&self) -> Result<Made, Error>;

    /// The device of QEMU that takes it.
    fn qemu(&self) -> QemuDevice;

    /// What the user is told once it is served: the command line of QEMU that starts a machine with it, and what to do in the guest.
    /// `open_files` is the limit of open files.
    fn announcement(&self, qemu: &str, open_files: u64) -> String;
}

/// A device that is made and not served yet.
pub(crate) struct Made {
    pub(crate) device: Box<dyn Device>,
    /// To be called when it is served no more.
    pub(crate) at_end: Option<Box<dyn FnOnce()>>,
}

impl Made {
    /// It is served no more.
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

    /// Makes the devices that were asked for.
    fn attach(&self, root: &Path, rings: Rings) -> Result<Vec<Attachment>, Error>;
}

/// A device for the machine of `boot`.
pub(crate) struct Attachment {
    pub(crate) made: Made,
    pub(crate) qemu: QemuDevice,
    /// See [`Service::keeps`].
    pub(crate) keeps: CapabilitySet,
}
