//! Reader and writer: any framing yields the same bytes, and the kernel moves them in one call.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use guestmem::{CursorError, Memory, Pieces, Reader, RwFlags, Writer};
use proptest::prelude::*;

fn memory(size: u64) -> (Memory, OwnedFd) {
    Memory::memfd("cursor", size, 0).expect("a memfd")
}

/// Pieces of the given lengths, spread out with a byte between them, so that no two are adjacent.
fn scattered(memory: &Memory, lengths: &[usize]) -> Pieces {
    let mut pieces = Pieces::new(memory);
    let mut address = 3;
    for &length in lengths {
        pieces.push(address, length as u64).expect("in range");
        address += length as u64 + 1;
    }
    pieces
}

proptest! {
    #[test]
    fn any_framing_and_any_steps_give_the_same_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cuts in proptest::collection::vec(0usize..60, 0..12),
        steps in proptest::collection::vec(0usize..70, 0..12),
    ) {
        let (memory, _file) = memory(0x1000);
        let mut lengths = Vec::new();
        let mut left = bytes.len();
        for cut in cuts {
            lengths.push(cut.min(left));
            left -= cut.min(left);
        }
        lengths.push(left);
        let pieces = scattered(&memory, &lengths);
        let (mut writer, mut reader) = (Writer::new(&pieces), Reader::new(&pieces));
        let mut rest = &bytes[..];
        for (index, step) in steps.iter().enumerate() {
            let (now, later) = rest.split_at((*step).min(rest.len()));
            match index % 2 {
                0 => writer.write_all(now).expect("room"),
                _ => writer.split_at(now.len()).expect("room").write_all(now).expect("its own room"),
            }
            rest = later;
        }
        writer.write_all(rest).expect("room");
        prop_assert_eq!((writer.written(), writer.remaining()), (bytes.len(), 0));
        prop_assert_eq!(writer.write_all(&[1]), Err(CursorError::Short { wanted: 1, left: 0 }));

        let mut seen = Vec::new();
        for (index, step) in steps.iter().rev().enumerate() {
            let step = (*step).min(reader.remaining());
            match index % 3 {
                0 => seen.extend(reader.read_to_vec(step).expect("bytes")),
                1 => seen.extend(reader.split_at(step).expect("bytes").read_to_vec(step).expect("its own bytes")),
                _ => {
                    seen.extend(&bytes[seen.len()..][..step]);
                    reader.skip(step).expect("bytes");
                }
            }
            prop_assert_eq!(reader.consumed(), seen.len());
        }
        seen.extend(reader.read_to_vec(reader.remaining()).expect("bytes"));
        prop_assert_eq!(seen, bytes);
    }
}

#[test]
fn too_much_is_refused_without_a_move() {
    let (memory, _file) = memory(0x1000);
    let pieces = scattered(&memory, &[3, 2]);
    let (mut reader, mut writer) = (Reader::new(&pieces), Writer::new(&pieces));
    let short = CursorError::Short { wanted: 8, left: 5 };
    assert_eq!(reader.read_object::<u64>(), Err(short));
    assert_eq!(reader.read_to_vec(8), Err(short));
    assert_eq!(reader.skip(8), Err(short));
    assert_eq!(reader.split_at(8).err(), Some(short));
    assert_eq!(
        reader.read_to_vec(usize::MAX),
        Err(CursorError::Short {
            wanted: usize::MAX,
            left: 5
        })
    );
    assert_eq!(reader.remaining(), 5);
    assert_eq!(writer.write_object(&0u64), Err(short));
    assert_eq!(writer.split_at(8).err(), Some(short));
    assert_eq!((writer.remaining(), writer.written()), (5, 0));
}

#[test]
fn a_header_split_off_is_written_last_and_lies_in_front() {
    let (memory, _file) = memory(0x1000);
    let pieces = scattered(&memory, &[3, 9]);
    let mut body = Writer::new(&pieces);
    let mut header = body.split_at(4).expect("room for the header");
    assert_eq!((header.remaining(), body.remaining(), body.written()), (4, 8, 4));
    body.write_object(&[7u8; 8]).expect("room");
    header.write_object(&[1u8; 4]).expect("room");
    assert!(header.write_all(&[0]).is_err(), "the header must not run into the body");
    let all = Reader::new(&pieces).read_to_vec(12).expect("all of it");
    assert_eq!(all, [1, 1, 1, 1, 7, 7, 7, 7, 7, 7, 7, 7]);
}

/// A page for each piece; more pieces than the kernel takes in one call.
const MANY: usize = 1500;

#[test]
fn file_transfers_go_past_the_kernels_limit_of_pieces_and_stop_at_end_of_file() {
    let (memory, _file) = memory(0x10_0000);
    let pieces = scattered(&memory, &[5; MANY]);
    let content: Vec<u8> = (0..7000u32).map(|index| (index % 251) as u8).collect();
    let file = tempfile::tempfile().expect("a temporary file");
    file.write_all_at(&content, 100).expect("room on the disk");

    let mut writer = Writer::new(&pieces);
    let moved = writer
        .read_from(file.as_fd(), 100, usize::MAX, RwFlags::empty())
        .expect("readable");
    assert_eq!((moved, writer.written(), writer.remaining()), (7000, 7000, 500));
    let moved = writer
        .read_from(file.as_fd(), 7100, 10, RwFlags::empty())
        .expect("readable");
    assert_eq!(moved, 0, "end of file");

    let copy = tempfile::tempfile().expect("a temporary file");
    let mut reader = Reader::new(&pieces);
    let mut first = reader.split_at(6000).expect("bytes");
    assert_eq!(
        first
            .write_to(copy.as_fd(), 0, usize::MAX, RwFlags::empty())
            .expect("writable"),
        6000
    );
    assert_eq!(
        reader
            .write_to(copy.as_fd(), 6000, 1000, RwFlags::empty())
            .expect("writable"),
        1000
    );
    assert_eq!((reader.consumed(), reader.remaining()), (7000, 500));
    let mut back = vec![0; 7000];
    copy.read_exact_at(&mut back, 0).expect("that much");
    assert_eq!(back, content);
}

#[test]
fn the_kernels_errors_and_offsets_out_of_range_are_values() {
    let (memory, _file) = memory(0x1000);
    let pieces = scattered(&memory, &[16]);
    let (pipe, _write_end) = std::io::pipe().expect("a pipe");
    let error = Writer::new(&pieces)
        .read_from(pipe.as_fd(), 0, 16, RwFlags::empty())
        .expect_err("pipes have no offsets");
    assert_eq!(error.raw_os_error(), Some(libc::ESPIPE));
    let file = tempfile::tempfile().expect("a temporary file");
    let error = Reader::new(&pieces)
        .write_to(file.as_fd(), u64::MAX, 16, RwFlags::empty())
        .expect_err("no such offset");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(file.metadata().expect("its length").len(), 0);
}

#[test]
fn sockets_get_and_give_the_bytes_of_all_pieces_in_one_message() {
    let (memory, _file) = memory(0x4000);
    let pieces = scattered(&memory, &[3, 0, 100, 1]);
    let bytes: Vec<u8> = (0..104).collect();
    Writer::new(&pieces).write_all(&bytes).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut reader = Reader::new(&pieces);
    assert_eq!(reader.send_to(ours.as_fd(), 100).unwrap(), 100);
    assert_eq!((reader.consumed(), reader.remaining()), (100, 4));
    let copy = scattered(&memory, &[50, 70]);
    let mut writer = Writer::new(&copy);
    assert_eq!(writer.receive_from(theirs.as_fd(), 120).unwrap(), 100);
    assert_eq!(Reader::new(&copy).read_to_vec(100).unwrap(), bytes[..100]);
    let empty = writer.receive_from(theirs.as_fd(), 20).unwrap_err();
    assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
    drop(ours);
    assert_eq!(writer.receive_from(theirs.as_fd(), 20).unwrap(), 0);
}

#[test]
fn nothing_is_sent_or_received_if_a_piece_cannot_be_reached() {
    let (memory, _file) = memory(0x1000);
    let mut pieces = Pieces::new(&memory);
    pieces.push_buffer(0, 4);
    pieces.push_buffer(1 << 40, 4);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let refused = Reader::new(&pieces).send_to(ours.as_fd(), 8).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EFAULT));
    theirs.set_nonblocking(true).unwrap();
    assert!(rustix::io::read(&theirs, &mut [0; 8]).is_err(), "nothing was sent");
    assert_eq!(rustix::io::write(&ours, b"kept"), Ok(4));
    let mut writer = Writer::new(&pieces);
    assert_eq!(
        writer.receive_from(theirs.as_fd(), 8).unwrap_err().raw_os_error(),
        Some(libc::EFAULT)
    );
    assert_eq!(writer.receive_from(theirs.as_fd(), 4).unwrap(), 4);
}
