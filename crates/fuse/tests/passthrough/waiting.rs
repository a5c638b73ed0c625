//! Non-blocking reads: the part that they leave, and its position.

use std::fs::{self, File};
use std::path::Path;

use fuse::fs::{FileSystem, Handle, NodeId};
use fuse::passthrough::{Options, Passthrough};
use guestmem::{Memory, Pieces, Writer};
use rustix::fs::{Advice, fadvise};

use crate::share::{ROOT, Share, name, share, share_in};

const LENGTH: u32 = 128 << 10;
const PLACES: u64 = 8;

/// What a read that does not wait brings, and whether it left some of that to be waited for. `between` happens before that.
fn read(fs: &Passthrough, file: (NodeId, Handle), offset: u64, between: impl FnOnce()) -> (Vec<u8>, bool) {
    let (memory, _) = Memory::memfd("test", 1 << 20, 0).unwrap();
    let mut pieces = Pieces::new(&memory);
    pieces.push(0, u64::from(LENGTH)).unwrap();
    let mut writer = Writer::new(&pieces);
    let rest = fs.read_at_once(file.0, file.1, offset, LENGTH, &mut writer).unwrap();
    let left = rest.is_some();
    between();
    if let Some(rest) = rest {
        rest(&mut writer).unwrap();
    }
    let mut bytes = vec![0; writer.written()];
    memory.read(0, &mut bytes).unwrap();
    (bytes, left)
}

fn contents() -> Vec<u8> {
    (0..PLACES as u32 * LENGTH / 4).flat_map(u32::to_le_bytes).collect()
}

/// A file of the share, open.
fn opened(share: &Share, flags: i32) -> (NodeId, Handle) {
    fs::write(share.host("f"), contents()).unwrap();
    let node = share.node(c"f");
    (node, share.open(node, flags).unwrap())
}

/// Where the tests are built there is a disk, as a rule.
fn on_disk(options: Options) -> Share {
    share_in(Path::new(env!("CARGO_TARGET_TMPDIR")), options)
}

/// Whether anything was let go of; else there is no disk, or it is one without a page cache of this host.
fn cool(share: &Share) -> bool {
    let file = File::open(share.host("f")).unwrap();
    file.sync_all().unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let flags = guestmem::RwFlags::NOWAIT;
    let asked = rustix::io::preadv2(&file, &mut [std::io::IoSliceMut::new(&mut [0])], 0, flags);
    let cold = asked == Err(rustix::io::Errno::AGAIN);
    if !cold {
        eprintln!("skipped: what is written stays in memory, or nobody tells");
    }
    cold
}

#[test]
fn what_is_in_the_page_cache_is_read_at_once() {
    let share = share(Options::default());
    let file = opened(&share, libc::O_RDONLY);
    let contents = contents();
    // tmpfs tells so the first time that it does not tell.
    for offset in (0..PLACES).map(|place| place * u64::from(LENGTH)) {
        let expected = &contents[offset as usize..][..LENGTH as usize];
        assert_eq!(read(&share.fs, file, offset, || {}), (expected.to_vec(), false));
    }
    assert_eq!(read(&share.fs, file, contents.len() as u64, || {}), (vec![], false));
    let end = contents.len() - 5;
    assert_eq!(
        read(&share.fs, file, end as u64, || {}),
        (contents[end..].to_vec(), false)
    );
}

#[test]
fn what_lies_on_the_disk_is_left_and_outlives_its_handle() {
    let share = on_disk(Options::default());
    let file = opened(&share, libc::O_RDONLY);
    if !cool(&share) {
        return;
    }
    let contents = contents();
    let mut left_of = 0;
    // From the end, so that nothing is read ahead. The place at the start was asked for above.
    for place in (1..PLACES).rev().step_by(2) {
        let offset = place as usize * LENGTH as usize;
        let (bytes, left) = read(&share.fs, file, offset as u64, || {
            if place == 1 {
                share.fs.release(file.0, file.1).unwrap();
            }
        });
        assert!(bytes == contents[offset..][..LENGTH as usize]);
        left_of += u64::from(left);
    }
    assert!(left_of > 0, "the lane waited for the disk");
}

#[test]
fn a_read_past_the_end_is_not_left_for_what_lies_behind_it() {
    let share = on_disk(Options::default());
    let file = opened(&share, libc::O_RDONLY);
    if !cool(&share) {
        return;
    }
    let contents = contents();
    let end = contents.len() - 5;
    let _left = read(&share.fs, file, end as u64 - u64::from(LENGTH), || {});
    assert!(
        fs::read(share.host("f")).unwrap() == contents,
        "all of it is in the page cache"
    );
    let expected = contents[end..].to_vec();
    assert_eq!(read(&share.fs, file, end as u64, || {}), (expected, false));
}

/// Direct reads go by the page cache.
#[test]
fn a_direct_read_is_always_left() {
    let options = Options {
        allow_direct_io: true,
        ..Options::default()
    };
    let share = on_disk(options);
    fs::write(share.host("f"), contents()).unwrap();
    let node = share.node(c"f");
    let Ok(handle) = share.open(node, libc::O_RDONLY | libc::O_DIRECT) else {
        eprintln!("skipped: the file system has no direct I/O");
        return;
    };
    for _ in 0..2 {
        let expected = contents()[..LENGTH as usize].to_vec();
        assert_eq!(read(&share.fs, (node, handle), 0, || {}), (expected, true));
    }
}

/// Not a network, but nothing that is known to have its data at hand.
#[test]
fn a_file_system_that_tells_nothing_is_read_elsewhere() {
    let fs = Passthrough::new(Path::new("/proc/sys/kernel"), Options::default()).unwrap();
    let node = fs.lookup(&ROOT, NodeId::ROOT, name(c"ostype")).unwrap().node;
    let handle = fs.open(&ROOT, node, 0, false).unwrap().handle;
    for _ in 0..2 {
        assert_eq!(read(&fs, (node, handle), 0, || {}), (b"Linux\n".to_vec(), true));
    }
}

#[test]
fn tmpfs_is_read_at_once() {
    let Ok(_there) = fs::metadata("/dev/shm") else { return };
    let share = share_in(Path::new("/dev/shm"), Options::default());
    let file = opened(&share, libc::O_RDONLY);
    for _ in 0..2 {
        let expected = contents()[..LENGTH as usize].to_vec();
        assert_eq!(read(&share.fs, file, 0, || {}), (expected, false));
    }
}
