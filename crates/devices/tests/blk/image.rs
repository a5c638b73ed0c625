//! Images that cannot be served are refused in words that say what to do.

use devices::blk::{BlkDevice, BlkOptions, Engine, Error};
use image::Error as ImageError;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::driver::{Disk, SECTOR};

fn refused(options: BlkOptions) -> Error {
    BlkDevice::new(options).err().expect("it cannot be served")
}

fn read_only(disk: &Disk) -> BlkOptions {
    let mut options = disk.options(Engine::Auto);
    options.image.read_only = true;
    options
}

#[test]
fn what_is_no_image_is_refused() {
    let disk = Disk::new(&[1; 1000]);
    let at = |name: &str| {
        let mut options = disk.options(Engine::Auto);
        options.image.path = disk.path().with_file_name(name);
        options
    };
    let missing = refused(at("missing"));
    assert!(matches!(missing, Error::Image(ImageError::Missing { .. })), "{missing}");
    let mut directory = at("x");
    directory.image.path = disk.path().parent().unwrap().into();
    let directory = refused(directory);
    assert!(
        matches!(directory, Error::Image(ImageError::Directory { .. })),
        "{directory}"
    );
    mknodat(
        CWD,
        disk.path().with_file_name("fifo"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    let fifo = refused(at("fifo"));
    assert!(matches!(fifo, Error::Image(ImageError::Special { .. })), "{fifo}");
    let length = refused(at("image"));
    assert!(length.to_string().contains("truncate -s 1024 "), "{length}");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let disk = Disk::new(&[1; SECTOR]);
    let with = |change: fn(&mut BlkOptions)| {
        let mut options = disk.options(Engine::Auto);
        change(&mut options);
        refused(options)
    };
    assert!(matches!(with(|options| options.queues = 0), Error::Queues(0)));
    assert!(matches!(with(|options| options.queues = 65), Error::Queues(65)));
    assert!(matches!(
        with(|options| options.serial = "x".repeat(21)),
        Error::Serial(_)
    ));
    assert!(matches!(
        with(|options| options.serial = "a\0".into()),
        Error::Serial(_)
    ));
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let disk = Disk::new(&[1; SECTOR]);
    let in_use = |options| {
        let error = refused(options);
        assert!(matches!(error, Error::Image(ImageError::InUse { .. })), "{error}");
    };
    let writer = BlkDevice::new(disk.options(Engine::Auto)).unwrap();
    in_use(disk.options(Engine::Auto));
    in_use(read_only(&disk));
    drop(writer);
    let readers = [(); 2].map(|()| BlkDevice::new(read_only(&disk)).unwrap());
    in_use(disk.options(Engine::Auto));
    drop(readers);
    BlkDevice::new(disk.options(Engine::Auto)).unwrap();
}

/// The bytes that QEMU locks, as its documentation of image locking has them: 100 + permission, 200 + denied permission.
#[test]
fn qemu_sees_the_lock() {
    use std::os::fd::AsRawFd;
    let disk = Disk::new(&[1; SECTOR]);
    let other = std::fs::File::options()
        .read(true)
        .write(true)
        .open(disk.path())
        .unwrap();
    let held = |byte| {
        let mut range = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: the kernel reads and writes this structure only.
        #[expect(unsafe_code, reason = "asks the kernel for the locks of another open file")]
        let asked = unsafe { libc::fcntl(other.as_raw_fd(), libc::F_OFD_GETLK, &raw mut range) };
        assert_eq!(asked, 0);
        i32::from(range.l_type) != libc::F_UNLCK
    };
    let locked = || {
        (100..=110)
            .chain(200..=210)
            .filter(|byte| held(*byte))
            .collect::<Vec<_>>()
    };
    let writer = BlkDevice::new(disk.options(Engine::Auto)).unwrap();
    assert_eq!(locked(), [100, 101, 201, 203]);
    drop(writer);
    let reader = BlkDevice::new(read_only(&disk)).unwrap();
    assert_eq!(locked(), [100, 201, 203]);
    drop(reader);
    assert_eq!(locked(), []);
}
