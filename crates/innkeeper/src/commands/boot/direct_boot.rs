//! How the guest gets from its kernel to its root: by the kernel alone, or by an initramfs.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

use super::args::Boot;
use super::error::Error;
use super::initramfs;
use super::kernel::Kernel;
use super::modules::Modules;
use super::root::Root;
use super::terminal;
use crate::guest::places;
use crate::guest::plan::Plan;
use crate::serve::fs::ROOT_TAG;

/// What QEMU is to load besides the kernel.
#[derive(Debug)]
pub(crate) struct DirectBoot {
    pub(crate) initrd: Option<OwnedFd>,
    /// The kernel's command line.
    pub(crate) words: String,
    /// For the user: how the root is reached.
    pub(crate) description: &'static str,
}

impl DirectBoot {
    /// Chooses the simplest way that works: no initramfs where the kernel has virtio-fs built in and its own init runs.
    pub(crate) fn plan(args: &Boot, root: &Root, kernel: &Kernel) -> Result<Self, Error> {
        let init = if args.command.is_empty() {
            Some(find_init(args, root)?)
        } else {
            None
        };
        let by_kernel = |initrd, description| {
            let access = if args.devices.fs.export.readonly { "ro" } else { "rw" };
            let mut own = vec![format!("root={ROOT_TAG} rootfstype=virtiofs {access}")];
            own.extend(init.as_ref().map(|path| format!("init={path}")));
            Self {
                initrd,
                words: words(args, &own),
                description,
            }
        };

        if let Some(path) = &args.initrd {
            let file = File::open(path).map_err(|source| Error::ReadInitrd {
                path: path.clone(),
                source,
            })?;
            return Ok(by_kernel(Some(file.into()), "the given initramfs"));
        }
        let mut drivers = vec!["virtio_pci"];
        drivers.extend(args.devices.kinds().iter().flat_map(|kind| kind.drivers()));
        if !args.command.is_empty() {
            drivers.push("virtio_console");
        }
        let modules = match Modules::find(&kernel.release, &args.root, args.kernel.as_deref()) {
            Some(modules) => modules.needed(&drivers)?,
            // Nothing to load from: the kernel must have them built in, and says so itself if not.
            None => Vec::new(),
        };
        if modules.is_empty() && init.is_some() {
            return Ok(by_kernel(None, "no initramfs"));
        }

        let plan = Plan {
            root_tag: ROOT_TAG.into(),
            readonly: args.devices.fs.export.readonly,
            init,
            command: args.command.clone(),
            terminal: terminal::interactive().then(|| std::env::var_os("TERM").unwrap_or_else(|| "linux".into())),
            ..Plan::default()
        };
        let archive = initramfs::build(&modules, plan).map_err(|source| Error::Initramfs {
            path: Path::new("/proc/self/exe").into(),
            source,
        })?;
        let initrd = in_memory(&archive).map_err(process::Error::system("keep the initramfs in memory"))?;
        let own = [format!("rdinit={}", places::PROGRAM)];
        Ok(Self {
            initrd: Some(initrd),
            words: words(args, &own),
            description: "an initramfs of innkeeper's own",
        })
    }
}

/// The program that the guest's kernel shall start: the user's, or the first that the root has.
fn find_init(args: &Boot, root: &Root) -> Result<String, Error> {
    let mut words = args
        .append
        .iter()
        .rev()
        .flat_map(|words| words.split_whitespace().rev());
    if let Some(init) = words.find_map(|word| word.strip_prefix("init=")) {
        return Ok(init.into());
    }
    let found = ["/sbin/init", "/init"].into_iter().find(|path| root.exists(path));
    found.map(String::from).ok_or_else(|| Error::NoInit {
        root: args.root.clone(),
    })
}

/// The kernel's command line. The user's words come last: where two disagree, Linux takes the later.
fn words(args: &Boot, own: &[String]) -> String {
    // After a panic the machine resets itself, which ends QEMU: a guest that cannot go on does not hang.
    let mut words = vec!["console=ttyS0 panic=-1".to_owned()];
    if !args.command.is_empty() && !args.verbose {
        words.push("quiet".into());
    }
    words.extend_from_slice(own);
    words.extend_from_slice(&args.append);
    words.join(" ")
}

fn in_memory(contents: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("initramfs", MemfdFlags::CLOEXEC)?);
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::commands::boot::args::tests::parsed;
    use crate::commands::boot::kernel::tests::image;

    /// A root with a kernel, and what else `fill` puts there.
    fn start(fill: impl Fn(&Path), options: &[&str]) -> Result<DirectBoot, Error> {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("boot")).unwrap();
        fs::write(tree.path().join("boot/vmlinuz-6.1"), image("6.1")).unwrap();
        fill(tree.path());
        let path = tree.path().to_str().unwrap();
        let args = parsed(&[&[path], options].concat());
        let root = Root::open(&args.root).unwrap();
        let kernel = Kernel::find(None, &root, &args.root).unwrap();
        DirectBoot::plan(&args, &root, &kernel)
    }

    fn with_init(tree: &Path) {
        fs::create_dir(tree.join("sbin")).unwrap();
        fs::create_dir(tree.join("lib")).unwrap();
        fs::write(tree.join("lib/systemd"), "").unwrap();
        symlink("/lib/systemd", tree.join("sbin/init")).unwrap();
    }

    fn with_modules(tree: &Path, builtin: &str) {
        let modules = tree.join("lib/modules/6.1");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("modules.builtin"), builtin).unwrap();
        fs::write(
            modules.join("modules.dep"),
            "virtiofs.ko:\nvirtio_pci.ko:\nvirtio_console.ko:\n",
        )
        .unwrap();
        for module in ["virtiofs", "virtio_pci", "virtio_console"] {
            fs::write(modules.join(format!("{module}.ko")), "").unwrap();
        }
    }

    const BUILTIN: &str = "x/virtiofs.ko\nx/virtio_pci.ko\n";

    #[test]
    fn a_kernel_with_virtio_fs_built_in_boots_without_initramfs() {
        for builtin in [Some(BUILTIN), None] {
            let fill = |tree: &Path| {
                with_init(tree);
                builtin.iter().for_each(|builtin| with_modules(tree, builtin));
            };
            let start = start(fill, &["--append", "loglevel=3"]).unwrap();
            assert!(start.initrd.is_none());
            let words = "console=ttyS0 panic=-1 root=rootfs rootfstype=virtiofs rw init=/sbin/init loglevel=3";
            assert_eq!(start.words, words);
        }
    }

    #[test]
    fn a_kernel_with_modules_gets_an_initramfs() {
        let fill = |tree: &Path| {
            with_init(tree);
            with_modules(tree, "");
        };
        let start = start(fill, &["--readonly"]).unwrap();
        assert!(start.initrd.is_some());
        assert_eq!(
            start.words,
            format!("console=ttyS0 panic=-1 rdinit={}", places::PROGRAM)
        );
    }

    #[test]
    fn a_command_needs_no_init_in_the_root() {
        let start = start(|tree| with_modules(tree, BUILTIN), &["--", "true"]).unwrap();
        assert!(start.initrd.is_some());
        assert!(start.words.contains("quiet"));
    }

    #[test]
    fn a_root_without_init_is_refused_unless_one_is_named() {
        assert!(matches!(start(|_| {}, &[]), Err(Error::NoInit { .. })));
        let start = start(|_| {}, &["--append", "init=/bin/sh"]).unwrap();
        assert!(start.words.contains("init=/bin/sh"));
    }
}
