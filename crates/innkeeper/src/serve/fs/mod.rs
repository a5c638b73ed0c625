//! virtio-fs: `innkeeper share`, and the directories of `boot`.

mod args;
mod error;
mod error_log;
mod make;
mod words;

use std::path::Path;
use std::sync::Arc;

use fuse::failure::Failures;
use rustix::thread::CapabilitySet;

pub(crate) use args::{Attach, ROOT_TAG, Share};

use super::args::{Ring, Rings, Serving};
use super::device::{self, Attachment, Made, Service};
use super::error::Error;
use super::qemu::QemuDevice;
use args::{LogErrors, SharedDirectory};
use error_log::ErrorLog;

/// All that requests and the start of a share need. Not among them is CAP_SYS_RESOURCE, with which a guest would write beyond
/// the hard limits of quotas.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    // chattr +i and +a.
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    // trusted.* and security.*, views, and file handles in a mount namespace of one's own.
    .union(CapabilitySet::SYS_ADMIN)
    // Labels of SELinux and Smack.
    .union(CapabilitySet::MAC_ADMIN)
    .union(CapabilitySet::MAC_OVERRIDE);

impl Service for Share {
    fn serving(&self) -> &Serving {
        &self.serving
    }

    fn check(&self) -> Result<(), Error> {
        Ok(make::check(&self.directory)?)
    }

    fn keeps(&self) -> CapabilitySet {
        KEPT
    }

    fn make(&self) -> Result<Made, Error> {
        let (failures, at_end) = listener(&self.errors)?;
        let device = make::device(&self.directory, &self.tag, &self.export, failures)?;
        Ok(Made {
            device: Box::new(device),
            at_end,
        })
    }

    fn qemu(&self) -> QemuDevice {
        let packed = self.serving.rings.ring == Ring::Packed;
        words::qemu(&self.tag, &self.export, packed)
    }

    fn announcement(&self, qemu: &str, open_files: u64) -> String {
        format!(
            "Sharing {}. Start the virtual machine with\n\n  {qemu}\n\nand mount the share in the guest with\n\n  {}\n\n\
             At most {open_files} files are open at a time (--rlimit-nofile).\n",
            self.directory.display(),
            words::mount(&self.tag, &self.export),
        )
    }
}

impl device::Attach for Attach {
    fn check(&self, root: &Path) -> Result<(), Error> {
        for share in self.all(root)? {
            make::check(&share.directory)?;
        }
        Ok(())
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["virtiofs"]
    }

    fn attach(&self, root: &Path, rings: Rings) -> Result<Vec<Attachment>, Error> {
        // One log for all shares.
        let (failures, mut at_end) = listener(&self.errors)?;
        let shares = self.all(root)?.into_iter();
        let attach = |share: SharedDirectory| {
            let device = make::device(&share.directory, &share.tag, &self.export, failures.clone())?;
            Ok(Attachment {
                made: Made {
                    device: Box::new(device),
                    at_end: at_end.take(),
                },
                qemu: words::qemu(&share.tag, &self.export, rings.ring != Ring::Split),
                keeps: KEPT,
            })
        };
        shares.map(attach).collect()
    }
}

/// Who listens to what guests are refused, and what is said of it at the end.
type Listener = (Option<Arc<dyn Failures>>, Option<Box<dyn FnOnce()>>);

fn listener(args: &LogErrors) -> Result<Listener, Error> {
    Ok(match ErrorLog::open(args)? {
        Some(log) => (
            Some(Arc::clone(&log) as Arc<dyn Failures>),
            Some(Box::new(move || log.end())),
        ),
        None => (None, None),
    })
}
