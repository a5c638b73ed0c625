//! The modules that a kernel must load before it can use virtio-fs.

use std::io;
use std::path::Path;

use super::error::Error;
use super::root::Root;

/// A module, ready for the initramfs.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its file's name, with the suffix that tells how it is compressed.
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

/// The modules of one kernel release.
#[derive(Debug)]
pub(crate) struct Modules {
    root: Root,
    /// Relative to `root`.
    directory: String,
    release: String,
}

impl Modules {
    /// The modules of `release` in the guest's root, or in the tree that the kernel named by the user lies in. `None` if
    /// neither has any: then everything must be built in, and only the kernel itself knows. A kernel that was found in the root is
    /// not `named`: an earlier guest may have made a link of it that leads anywhere on the host.
    pub(crate) fn find(release: &str, root_path: &Path, named: Option<&Path>) -> Option<Self> {
        let kernel = named.map(|path| path.canonicalize().unwrap_or_else(|_| path.into()));
        // The kernel lies in its tree's /boot, or beside the tree's lib.
        let trees = kernel.iter().flat_map(|kernel| kernel.ancestors().skip(1).take(2));
        let trees = [root_path].into_iter().chain(trees);
        trees.into_iter().find_map(|tree| {
            let root = Root::open(tree).ok()?;
            let directory = format!("lib/modules/{release}");
            root.exists(&directory).then(|| Self {
                root,
                directory,
                release: release.into(),
            })
        })
    }

    /// What must be loaded, in order, so that `wanted` work; empty if all are built in.
    pub(crate) fn needed(&self, wanted: &[&'static str]) -> Result<Vec<Module>, Error> {
        let builtin = self.index("modules.builtin")?;
        let mut files = Vec::new();
        for &name in wanted {
            if builtin.lines().any(|line| module_name(line) == name) {
                continue;
            }
            let dependencies = self.index("modules.dep")?;
            let Some(chain) = chain(&dependencies, name) else {
                let directory = self.root.display(&self.directory);
                return Err(Error::NoModule {
                    release: self.release.clone(),
                    module: name,
                    directory,
                });
            };
            for file in chain {
                if !files.iter().any(|known| known == file) {
                    files.push(file.to_owned());
                }
            }
        }
        files.iter().map(|file| self.module(file)).collect()
    }

    fn index(&self, file: &'static str) -> Result<String, Error> {
        let contents = self.root.read(&format!("{}/{file}", self.directory)).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        contents.map_err(|_| Error::ModuleIndex {
            directory: self.root.display(&self.directory),
            file,
            release: self.release.clone(),
        })
    }

    fn module(&self, file: &str) -> Result<Module, Error> {
        let path = format!("{}/{file}", self.directory);
        let name = file.rsplit('/').next().unwrap_or(file).to_owned();
        match self.root.read(&path) {
            Ok(contents) => Ok(Module { name, contents }),
            Err(source) => Err(Error::ReadModule {
                path: self.root.display(&path),
                source,
            }),
        }
    }
}

/// The files to load for module `name`, dependencies first. `modules.dep` lists a module's dependencies, indirect ones
/// included, in the reverse of the order to load them in (depmod(8)).
fn chain<'a>(dependencies: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let (file, others) = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(file, _)| module_name(file) == name)?;
    let mut files: Vec<_> = others.split_whitespace().rev().collect();
    files.push(file);
    Some(files)
}

/// The kernel's name for a module: its file's, without suffixes, with `_` for `-`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DEPENDENCIES: &str = "\
kernel/fs/fuse/fuse.ko:
kernel/fs/fuse/virtiofs.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko kernel/fs/fuse/fuse.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio-pci.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
";

    fn modules(builtin: &str, dependencies: Option<&str>) -> (tempfile::TempDir, Modules) {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("lib/modules/6.1");
        for file in [
            "fs/fuse/fuse.ko",
            "fs/fuse/virtiofs.ko",
            "drivers/virtio/virtio.ko",
            "drivers/virtio/virtio_ring.ko",
        ]
        .into_iter()
        .chain(["drivers/virtio/virtio-pci.ko.xz"])
        {
            let path = directory.join("kernel").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        fs::write(directory.join("modules.builtin"), builtin).unwrap();
        if let Some(dependencies) = dependencies {
            fs::write(directory.join("modules.dep"), dependencies).unwrap();
        }
        let modules = Modules::find("6.1", tree.path(), Some(Path::new("/nowhere/boot/vmlinuz"))).unwrap();
        (tree, modules)
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let (_tree, modules) = modules("", Some(DEPENDENCIES));
        let needed = modules.needed(&["virtio_pci", "virtiofs"]).unwrap();
        assert_eq!(
            names(&needed),
            [
                "virtio_ring.ko",
                "virtio.ko",
                "virtio-pci.ko.xz",
                "fuse.ko",
                "virtiofs.ko"
            ]
        );
        assert_eq!(needed[3].contents, b"fs/fuse/fuse.ko");
    }

    #[test]
    fn what_is_built_in_needs_no_module_and_no_index() {
        let (_tree, modules) = modules(
            "kernel/fs/fuse/virtiofs.ko\nkernel/drivers/virtio/virtio_pci.ko\n",
            None,
        );
        assert!(modules.needed(&["virtio_pci", "virtiofs"]).unwrap().is_empty());
        let error = modules.needed(&["virtio_console"]).unwrap_err().to_string();
        assert!(error.contains("modules.dep") && error.contains("depmod"), "{error}");
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let (_tree, modules) = modules("", Some(DEPENDENCIES));
        let error = modules.needed(&["virtio_console"]).unwrap_err().to_string();
        assert!(error.contains("virtio_console") && error.contains("6.1"), "{error}");
    }

    #[test]
    fn the_tree_of_a_named_kernel_serves_where_the_root_has_none() {
        let (tree, _) = modules("", Some(DEPENDENCIES));
        fs::create_dir(tree.path().join("boot")).unwrap();
        fs::write(tree.path().join("boot/vmlinuz"), "").unwrap();
        let empty = tempfile::tempdir().unwrap();
        assert!(Modules::find("6.1", empty.path(), Some(&tree.path().join("boot/vmlinuz"))).is_some());
        assert!(Modules::find("6.2", empty.path(), Some(&tree.path().join("boot/vmlinuz"))).is_none());
    }

    /// Nobody named the kernel, so that only the guest's root counts.
    #[test]
    fn a_link_of_a_guest_leads_to_no_tree_of_the_host() {
        let (host, _) = modules("", Some(DEPENDENCIES));
        fs::create_dir(host.path().join("boot")).unwrap();
        fs::write(host.path().join("boot/vmlinuz"), "of the host").unwrap();

        // The guest's root: its kernel is a link, and what the link leads to for the guest is a kernel of the guest's making.
        let guest = tempfile::tempdir().unwrap();
        let image = crate::commands::boot::kernel::tests::image("6.1");
        let target = host.path().join("boot/vmlinuz");
        let inside = guest.path().join(target.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::write(inside, image).unwrap();
        fs::create_dir(guest.path().join("boot")).unwrap();
        std::os::unix::fs::symlink(&target, guest.path().join("boot/vmlinuz-6.1")).unwrap();

        let root = Root::open(guest.path()).unwrap();
        let kernel = crate::commands::boot::kernel::Kernel::find(None, &root, guest.path()).unwrap();
        let found = Modules::find(&kernel.release, guest.path(), None);
        assert!(
            found.is_none(),
            "modules of {}",
            found.unwrap().root.display("").display()
        );
    }
}
