//! File systems in image files, mounted where root may mount one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

pub(crate) struct Image(TempDir);

impl Image {
    /// A file system of `size` bytes that `make` makes, mounted with `options`.
    pub(crate) fn mount(size: u64, make: &[&str], options: &str) -> Option<Image> {
        let image = Image(TempDir::new().unwrap());
        let (file, mountpoint) = (image.0.path().join("image"), image.mountpoint());
        fs::create_dir(&mountpoint).unwrap();
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        let ran = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let mounted = rustix::process::geteuid().is_root()
            && ran(Command::new(make[0]).args(&make[1..]).arg(&file))
            && ran(Command::new("mount").args(["-o", options]).args([&file, &mountpoint]));
        if !mounted {
            eprintln!(
                "skipped: needs root, a loop device, and what `{}` makes",
                make.join(" ")
            );
        }
        mounted.then_some(image)
    }

    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.0.path().join("mnt")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mountpoint()).output();
    }
}
