//! Transfers by `io_uring` between a file and guest memory.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use guestmem::{Memory, Pieces, Vectors};
use image::{Completion, Ring};

const SIZE: u64 = 1 << 20;

fn memory() -> Memory {
    Memory::memfd("guest", SIZE, 0).unwrap().0
}

fn vectors(memory: &Memory, address: u64, length: usize) -> Vectors {
    let mut pieces = Pieces::new(memory);
    pieces.push(address, length as u64).unwrap();
    Vectors::new(&pieces, 0, length).unwrap()
}

fn file(bytes: &[u8]) -> Arc<OwnedFd> {
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
    Arc::new(file.into())
}

/// The ring, or nothing to test on a kernel without it.
fn ring<T>() -> Option<Ring<T>> {
    Ring::new(8).ok()
}

fn wait<T>(ring: &mut Ring<T>) -> Completion<T> {
    loop {
        ring.submit().unwrap();
        if let Some(completion) = ring.completed() {
            return completion;
        }
        ring.wait().unwrap();
    }
}

#[test]
fn bytes_move_both_ways() {
    let Some(mut ring) = ring() else { return };
    let (memory, file) = (memory(), file(b"some bytes of a file"));
    assert!(ring.read(&file, 5, vectors(&memory, 100, 5), 1).is_ok());
    let done = wait(&mut ring);
    assert_eq!((done.value, done.result.unwrap()), (1, 5));
    let mut read = [0; 5];
    memory.read(100, &mut read).unwrap();
    assert_eq!(&read, b"bytes");
    assert!(ring.write(&file, 0, vectors(&memory, 100, 4), true, 2).is_ok());
    let done = wait(&mut ring);
    assert_eq!((done.value, done.result.unwrap()), (2, 4));
    let mut head = [0; 10];
    rustix::io::pread(&file, &mut head, 0).unwrap();
    assert_eq!(&head, b"byte bytes");
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_full_ring_gives_the_value_back() {
    let Some(mut ring) = ring() else { return };
    let (memory, file) = (memory(), file(b"x"));
    let read = |ring: &mut Ring<u32>, value| ring.read(&file, 0, vectors(&memory, 0, 1), value);
    for value in 0..8 {
        assert!(read(&mut ring, value).is_ok());
    }
    assert!(ring.is_full());
    assert_eq!(read(&mut ring, 8), Err(8));
    let mut values: Vec<_> = (0..8).map(|_| wait(&mut ring).value).collect();
    values.sort_unstable();
    assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(ring.completed().is_none());
}

#[test]
fn errors_and_short_transfers_are_results() {
    let Some(mut ring) = ring() else { return };
    let (memory, file) = (memory(), file(b"short"));
    assert!(ring.read(&file, 3, vectors(&memory, 0, 100), ()).is_ok());
    assert_eq!(wait(&mut ring).result.unwrap(), 2);
    let read_only: Arc<OwnedFd> = Arc::new(std::fs::File::open("/dev/null").unwrap().into());
    assert!(ring.write(&read_only, 0, vectors(&memory, 0, 1), false, ()).is_ok());
    assert_eq!(wait(&mut ring).result.unwrap_err().raw_os_error(), Some(libc::EBADF));
}

/// Its descriptor wakes whoever polls.
#[test]
fn a_completion_makes_the_ring_readable() {
    use rustix::event::{PollFd, PollFlags, poll};
    let Some(mut ring) = ring() else { return };
    let (memory, file) = (memory(), file(b"x"));
    assert!(ring.read(&file, 0, vectors(&memory, 0, 1), ()).is_ok());
    ring.submit().unwrap();
    assert_eq!(
        poll(&mut [PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN)], None),
        Ok(1)
    );
    assert!(ring.completed().is_some());
}

/// The memory is still in use until then: a read from a pipe ends when there are bytes.
#[test]
fn a_dropped_ring_waits_for_its_transfers() {
    let Some(mut ring) = ring() else { return };
    let memory = memory();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let token = Arc::new(());
    assert!(
        ring.read(&Arc::new(reader), 0, vectors(&memory, 0, 1), Arc::clone(&token))
            .is_ok()
    );
    ring.submit().unwrap();
    let dropped = std::thread::spawn(move || drop(ring));
    assert_eq!(Arc::strong_count(&token), 2);
    rustix::io::write(&writer, b"x").unwrap();
    dropped.join().unwrap();
    assert_eq!(Arc::strong_count(&token), 1);
    let mut read = [0];
    memory.read(0, &mut read).unwrap();
    assert_eq!(&read, b"x");
}
