//! virtio-fs: `innkeeper share`, and the directories of `boot`.

mod args;
mod declaration;
mod error;
mod error_log;
mod exercise;
mod make;
mod words;

use std::path::Path;
use std::sync::Arc;

use confinement::{Action, Declaration, Maps, Role};
use fuse::failure::Failures;
use fuse::passthrough::{FuseDevice, Outside};
use rustix::thread::CapabilitySet;

pub(crate) use args::{Attach, ROOT_TAG, Share};

use super::args::{Ring, Rings, Serving};
use super::device::{self, Attachment, Inside, Made, Opened, Service};
use super::error::Error;
use super::exercise::Exercise;
use super::qemu::QemuDevice;
use super::threads::Threads;
use args::{FileHandles, LogErrors, SharedDirectory};
use error_log::ErrorLog;

impl Service for Share {
    fn serving(&self) -> &Serving {
        &self.serving
    }

    fn check(&self) -> Result<(), Error> {
        Ok(make::check(&self.directory)?)
    }

    fn declaration(&self) -> Result<Declaration, Error> {
        declaration::of(&self.directory, &self.export)
    }

    fn maps(&self) -> Maps {
        Maps {
            users: self.ids.uid_map.clone(),
            groups: self.ids.gid_map.clone(),
        }
    }

    fn open(&self) -> Result<Box<dyn Opened + '_>, Error> {
        let (failures, at_end) = listener(&self.errors)?;
        Ok(Box::new(OpenedShare {
            share: self,
            fuse: self.export.dax.map(|_| FuseDevice::open()),
            failures,
            at_end,
        }))
    }

    fn exercise(&self) -> Option<Exercise> {
        Some(exercise::exercise())
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

/// A share for which `/dev/fuse` and the log of errors are open.
struct OpenedShare<'s> {
    share: &'s Share,
    fuse: Option<FuseDevice>,
    failures: Option<Arc<dyn Failures>>,
    at_end: Option<Box<dyn FnOnce()>>,
}

impl Opened for OpenedShare<'_> {
    fn make(self: Box<Self>, inside: Inside, threads: &Threads) -> Result<Made, Error> {
        let Share {
            directory, tag, export, ..
        } = self.share;
        let shared = inside.shared.as_ref().unwrap_or(directory);
        let outside = Outside::confined(shared, inside.proc_self_fd, confine_views(self.fuse, threads));
        let mut export = export.clone();
        if !inside.opens_handles {
            if export.inode_file_handles == FileHandles::Mandatory {
                return Err(Error::Device(Box::new(error::Error::HandlesInSandbox)));
            }
            export.inode_file_handles = FileHandles::Never;
        }
        let device = make::device(outside, directory, tag, &export, self.failures, threads)?;
        Ok(Made {
            devices: vec![Box::new(device)],
            at_end: self.at_end,
        })
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

    fn attach(&self, root: &Path, rings: Rings, seccomp: Action) -> Result<Vec<Attachment>, Error> {
        // One log for all shares.
        let (failures, mut at_end) = listener(&self.errors)?;
        let shares = self.all(root)?.into_iter();
        let attach = |share: SharedDirectory| {
            let declaration = declaration::of(&share.directory, &self.export)?;
            let threads = Threads::new(declaration, seccomp, CapabilitySet::all())?;
            let fuse = self.export.dax.map(|_| FuseDevice::open());
            let outside = Outside::open(&share.directory, confine_views(fuse, &threads));
            let device = make::device(
                outside,
                &share.directory,
                &share.tag,
                &self.export,
                failures.clone(),
                &threads,
            )?;
            Ok(Attachment {
                made: Made {
                    devices: vec![Box::new(device)],
                    at_end: at_end.take(),
                },
                qemu: words::qemu(&share.tag, &self.export, rings.offers_packed()),
                threads,
            })
        };
        shares.map(attach).collect()
    }
}

/// Views of files are served by a thread that starts before the others, with more capabilities.
fn confine_views(fuse: Option<FuseDevice>, threads: &Threads) -> Option<FuseDevice> {
    fuse.map(|fuse| fuse.at_thread_start(threads.confined(Role::Views)))
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
