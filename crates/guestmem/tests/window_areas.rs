//! Buffers in windows, which are parts of files: accessed like memory while the file covers them, otherwise an error
//! and no signal.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use guestmem::{CursorError, Error, Memory, OutOfMemory, Pieces, Reader, RegionConfig, RwFlags, WindowAreas, Writer};

const PAGE: u64 = 0x1000;
const WINDOW: u64 = 1 << 30;

/// Two pages of memory at 0, a window, and the file of which it shows `pages` pages at [`WINDOW`].
fn world(pages: u64, writable: bool) -> (Memory, WindowAreas, File) {
    let named = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut file = named.reopen().expect("the file");
    let content: Vec<u8> = (0..pages * PAGE).map(|index| (index % 251) as u8).collect();
    file.write_all(&content).expect("room for it");
    let shown = File::options()
        .read(true)
        .write(writable)
        .open(named.path())
        .expect("the file");
    let windows = WindowAreas::default();
    windows
        .add(area(WINDOW, pages * PAGE, shown.into()))
        .expect("a good area");
    let (memory, _) = Memory::memfd("ram", 2 * PAGE, 0).expect("a memfd");
    (memory.with_windows(&windows), windows, file)
}

fn area(guest_address: u64, size: u64, file: OwnedFd) -> RegionConfig {
    RegionConfig {
        guest_address,
        size,
        user_address: guest_address,
        file,
        file_offset: 0,
    }
}

fn buffers(memory: &Memory, list: &[(u64, u32)]) -> Pieces {
    let mut pieces = Pieces::new(memory);
    for &(address, length) in list {
        pieces.push_buffer(address, length);
    }
    pieces
}

fn contents(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a regular file");
    file.read_to_end(&mut bytes).expect("a regular file");
    bytes
}

#[test]
fn copies_and_the_kernel_reach_a_window_between_memory() {
    let (memory, _windows, mut file) = world(2, true);
    memory.write(0, b"front").unwrap();
    let pieces = buffers(&memory, &[(0, 5), (WINDOW + PAGE - 2, 4), (PAGE, 3)]);
    let (mut reader, mut writer) = (Reader::new(&pieces), Writer::new(&pieces));
    let bytes = reader.read_to_vec(12).unwrap();
    let expected: Vec<u8> = (PAGE - 2..PAGE + 2).map(|index| (index % 251) as u8).collect();
    assert_eq!(
        (&bytes[..5], &bytes[5..9], &bytes[9..]),
        (&b"front"[..], &expected[..], &[0; 3][..])
    );
    writer.write_all(b"FRONTwindEND").unwrap();
    assert_eq!(contents(&mut file)[PAGE as usize - 2..][..4], *b"wind");
    let mut end = [0; 3];
    memory.read(PAGE, &mut end).unwrap();
    assert_eq!(&end, b"END");

    let mut other = tempfile::tempfile().unwrap();
    let written = Reader::new(&pieces).write_to(other.as_fd(), 0, 12, RwFlags::empty());
    assert_eq!(written.unwrap(), 12);
    assert_eq!(contents(&mut other), b"FRONTwindEND");
    other.rewind().unwrap();
    other.write_all(b"abcdefghijkl").unwrap();
    let read = Writer::new(&pieces).read_from(other.as_fd(), 0, 12, RwFlags::empty());
    assert_eq!(read.unwrap(), 12);
    assert_eq!(contents(&mut file)[PAGE as usize - 2..][..4], *b"fghi");
    assert_eq!(contents(&mut file).len() as u64, 2 * PAGE);
}

#[test]
fn behind_the_end_of_a_file_there_is_an_error_and_the_file_does_not_grow() {
    let (memory, _windows, mut file) = world(2, true);
    file.set_len(PAGE).unwrap();
    let pieces = buffers(&memory, &[(WINDOW + PAGE, 8)]);
    let (mut reader, mut writer) = (Reader::new(&pieces), Writer::new(&pieces));
    assert_eq!(reader.read_object::<u64>(), Err(CursorError::Fault));
    assert_eq!(writer.write_object(&1_u64), Err(CursorError::Fault));
    assert_eq!((reader.consumed(), writer.written()), (0, 0), "they do not move");
    let other = tempfile::tempfile().unwrap();
    let fault = reader.write_to(other.as_fd(), 0, 8, RwFlags::empty()).unwrap_err();
    assert_eq!(fault.raw_os_error(), Some(libc::EFAULT));
    rustix::io::pwrite(&other, b"12345678", 0).unwrap();
    let fault = writer.read_from(other.as_fd(), 0, 8, RwFlags::empty()).unwrap_err();
    assert_eq!(fault.raw_os_error(), Some(libc::EFAULT));
    assert_eq!(contents(&mut file).len() as u64, PAGE);
}

#[test]
fn a_file_that_is_open_for_reading_is_not_written() {
    let (memory, _windows, mut file) = world(1, false);
    let before = contents(&mut file);
    let pieces = buffers(&memory, &[(WINDOW, 8)]);
    assert!(Reader::new(&pieces).read_object::<u64>().is_ok());
    assert_eq!(Writer::new(&pieces).write_object(&1_u64), Err(CursorError::Fault));
    let other = tempfile::tempfile().unwrap();
    rustix::io::pwrite(&other, b"12345678", 0).unwrap();
    assert!(
        Writer::new(&pieces)
            .read_from(other.as_fd(), 0, 8, RwFlags::empty())
            .is_err()
    );
    assert_eq!(contents(&mut file), before);
}

#[test]
fn what_lies_nowhere_ends_a_run_where_it_comes() {
    let (memory, _windows, _file) = world(1, true);
    let pieces = buffers(&memory, &[(0, 4), (1 << 50, 4), (8, 4)]);
    assert_eq!(pieces.total(), 12);
    let mut reader = Reader::new(&pieces);
    assert_eq!(reader.read_exact(&mut [0; 5]), Err(CursorError::Fault));
    let other = tempfile::tempfile().unwrap();
    assert_eq!(reader.write_to(other.as_fd(), 0, 12, RwFlags::empty()).unwrap(), 4);
    let fault = reader.write_to(other.as_fd(), 4, 8, RwFlags::empty()).unwrap_err();
    assert_eq!(fault.raw_os_error(), Some(libc::EFAULT));
    // A run may pass over it.
    reader.skip(4).unwrap();
    assert_eq!(reader.read_to_vec(4).unwrap(), [0; 4]);
}

#[test]
fn a_window_changes_under_a_snapshot_of_memory_and_what_is_in_use_stays_mapped() {
    let (memory, windows, _file) = world(1, true);
    let pieces = buffers(&memory, &[(WINDOW, 2)]);
    assert!(!windows.remove(WINDOW, PAGE, 0), "another user address");
    assert!(windows.remove(WINDOW, PAGE, WINDOW));
    assert_eq!(Reader::new(&pieces).read_to_vec(2).unwrap(), [0, 1]);
    let mut later = Pieces::new(&memory);
    assert_eq!(
        later.push(WINDOW, 2),
        Err(OutOfMemory {
            guest_address: WINDOW,
            length: 2
        })
    );
}

#[test]
fn no_ring_lies_in_a_window() {
    let (memory, _windows, _file) = world(1, true);
    assert!(memory.area(WINDOW, 16).is_err());
    assert_eq!(memory.guest_address_of(WINDOW), None);
}

#[test]
fn areas_that_overlap_are_refused_and_what_cannot_be_mapped_is_kept_unreachable() {
    let (memory, windows, file) = world(2, true);
    for (address, size) in [(WINDOW, PAGE), (WINDOW + PAGE, PAGE), (WINDOW - PAGE, 2 * PAGE)] {
        let twice = windows.add(area(address, size, file.try_clone().unwrap().into()));
        assert!(matches!(twice, Err(Error::Overlap { .. })), "{twice:?}");
    }
    let endless = windows.add(area(u64::MAX - PAGE + 1, PAGE, file.try_clone().unwrap().into()));
    assert!(matches!(endless, Err(Error::Overflow { .. })), "{endless:?}");
    let pipe = rustix::pipe::pipe().unwrap().0;
    windows.add(area(1 << 40, PAGE, pipe)).unwrap();
    assert_eq!(
        Reader::new(&buffers(&memory, &[(1 << 40, 8)])).read_object::<u64>(),
        Err(CursorError::Fault)
    );
    assert!(windows.remove(1 << 40, PAGE, 1 << 40));
}
