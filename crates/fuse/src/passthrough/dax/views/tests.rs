#![allow(unsafe_code, reason = "mappings are what is tested")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::ptr::{null_mut, read_volatile, write_volatile};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::*;

const LENGTH: usize = 2 << 20;

/// `None`, and why, where this host has no views.
fn views() -> Option<Views> {
    match Views::new(FuseDevice::open()) {
        Ok(views) => Some(views),
        Err(reason) if !rustix::process::geteuid().is_root() => {
            eprintln!("skipped: not root, and {reason}");
            None
        }
        Err(reason @ (ViewsError::NoPassthrough | ViewsError::Device(_))) => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(reason) => panic!("{reason}"),
    }
}

/// Two MiB of a file, as a front end maps them.
struct Mapped(*mut u8);

impl Mapped {
    fn new(file: &OwnedFd, protection: ProtFlags) -> rustix::io::Result<Mapped> {
        // SAFETY: a new mapping at a place of the kernel's choice.
        let address = unsafe { mmap(null_mut(), LENGTH, protection, MapFlags::SHARED, file, 0) }?;
        Ok(Mapped(address.cast()))
    }

    fn load(&self, at: usize) -> u8 {
        assert!(at < LENGTH);
        // SAFETY: inside the mapping.
        let address = unsafe { self.0.add(at) };
        // SAFETY: mapped, and the tests touch no page behind the end of the file.
        unsafe { read_volatile(address) }
    }

    fn store(&self, at: usize, value: u8) {
        assert!(at < LENGTH);
        // SAFETY: inside the mapping.
        let address = unsafe { self.0.add(at) };
        // SAFETY: mapped for writing, and the tests touch no page behind the end of the file.
        unsafe { write_volatile(address, value) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made above, to which nothing refers any more.
        unsafe { munmap(self.0.cast(), LENGTH) }.unwrap();
    }
}

fn file(contents: &[u8]) -> (tempfile::TempDir, PathBuf, File) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.write_all(contents).unwrap();
    (place, path, file)
}

const BOTH: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

#[test]
fn a_process_with_views_dumps_no_core() {
    let Some(_views) = views() else { return };
    let behavior = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(behavior, rustix::process::DumpableBehavior::NotDumpable);
}

#[test]
fn a_view_maps_beyond_the_end_of_its_file_and_shares_its_pages() {
    let Some(views) = views() else { return };
    let (_place, _, file) = file(&[7; 5000]);
    let view = views.view(file.as_fd(), true).unwrap();
    assert!(
        rustix::fs::seek(&view, SeekFrom::End(0)).unwrap() > 1 << 62,
        "QEMU looks whether a mapping fits"
    );
    let mapped = Mapped::new(&view, BOTH).unwrap();
    drop(view);
    assert_eq!((mapped.load(0), mapped.load(4999), mapped.load(5000)), (7, 7, 0));
    mapped.store(4998, 1);
    let mut read = [0; 3];
    file.read_exact_at(&mut read[..2], 4998).unwrap();
    assert_eq!(read, [1, 7, 0], "a store is seen by who reads the file");
    file.write_all_at(b"grown", 1 << 20).unwrap();
    assert_eq!(
        mapped.load(1 << 20),
        b'g',
        "the file grows, and the mapping is as long already"
    );
    assert_eq!(
        file.metadata().unwrap().len(),
        (1 << 20) + 5,
        "a view changes no length"
    );
}

#[test]
fn an_empty_file_is_viewed_before_it_has_contents() {
    let Some(views) = views() else { return };
    let (_place, _, file) = file(&[]);
    let mapped = Mapped::new(&views.view(file.as_fd(), true).unwrap(), BOTH).unwrap();
    file.write_all_at(b"first", 0).unwrap();
    mapped.store(4, b'!');
    let mut read = [0; 5];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"firs!");
}

#[test]
fn a_view_does_nothing_but_map_and_is_opened_once() {
    let Some(views) = views() else { return };
    let (_place, path, file) = file(b"text");
    let reading = File::open(&path).unwrap();
    let view = views.view(reading.as_fd(), false).unwrap();
    assert_eq!(
        Mapped::new(&view, BOTH).err(),
        Some(Errno::ACCESS),
        "it was asked for reading alone"
    );
    assert_eq!(Mapped::new(&view, ProtFlags::READ).unwrap().load(0), b't');
    let view = views.view(file.as_fd(), true).unwrap();
    assert_eq!(rustix::fs::ftruncate(&view, 0), Err(Errno::PERM));
    let again = format!("/proc/self/fd/{}", view.as_raw_fd());
    assert_eq!(File::open(again).unwrap_err().raw_os_error(), Some(libc::EACCES));
    assert_eq!(file.metadata().unwrap().len(), 4);
}

/// The backend knows what QEMU announces as memory by device and inode.
#[test]
fn views_are_told_apart_also_from_those_of_other_shares() {
    let (Some(views), Some(other)) = (views(), self::views()) else {
        return;
    };
    let (_place, _, file) = file(b"text");
    let all: Vec<_> = [&views, &views, &other, &other]
        .map(|views| File::from(views.view(file.as_fd(), true).unwrap()).metadata().unwrap())
        .iter()
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect();
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
}

#[test]
fn a_view_outlives_what_made_it() {
    let Some(views) = views() else { return };
    let (_place, _, file) = file(b"text");
    let view = views.view(file.as_fd(), true).unwrap();
    drop(views);
    let mapped = Mapped::new(&view, BOTH).unwrap();
    drop(view);
    mapped.store(0, b'n');
    assert_eq!(mapped.load(3), b't');
    let mut read = [0; 4];
    file.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"next");
}

#[test]
fn lanes_open_views_at_once() {
    let Some(views) = views() else { return };
    let (_place, _, file) = file(b"text");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let view = views.view(file.as_fd(), true).unwrap();
                    assert_eq!(Mapped::new(&view, BOTH).unwrap().load(1), b'e');
                }
            });
        }
    });
}
