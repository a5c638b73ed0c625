//! Messages: a header of ours and a body in guest memory, in one system call.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use guestmem::{Memory, Pieces, Reader, Writer};

fn pieces(memory: &Memory, list: &[(u64, u32)]) -> Pieces {
    let mut pieces = Pieces::new(memory);
    for &(address, length) in list {
        pieces.push_buffer(address, length);
    }
    pieces
}

#[test]
fn a_message_goes_out_and_comes_in_as_one() {
    let (memory, _file) = Memory::memfd("guest", 1 << 16, 0).unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    memory.write(100, b"scattered ").unwrap();
    memory.write(900, b"body").unwrap();
    let readable = pieces(&memory, &[(100, 10), (900, 4)]);
    let mut reader = Reader::new(&readable);
    assert_eq!(reader.write_message(near.as_fd(), b"head ").unwrap(), 14);
    assert_eq!(reader.remaining(), 0);
    let mut message = [0; 100];
    let length = far.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"head scattered body");

    far.send(b"HEAD SCATTERED BODY").unwrap();
    let writable = pieces(&memory, &[(2000, 3), (3000, 50)]);
    let mut writer = Writer::new(&writable);
    let mut head = [0; 5];
    assert_eq!(writer.read_message(near.as_fd(), &mut head).unwrap(), 14);
    assert_eq!((&head, writer.written()), (b"HEAD ", 14));
    let mut body = [0; 12];
    memory.read(3000, &mut body).unwrap();
    assert_eq!(&body, b"TTERED BODY\0");
}

#[test]
fn nothing_moves_if_the_body_cannot_be_reached() {
    let (memory, _file) = Memory::memfd("guest", 1 << 16, 0).unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let outside = pieces(&memory, &[(100, 10), (1 << 40, 4)]);
    let refused = Reader::new(&outside).write_message(near.as_fd(), b"head");
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    assert_eq!(far.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    far.send(b"message").unwrap();
    let refused = Writer::new(&outside).read_message(near.as_fd(), &mut [0; 4]);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EFAULT));
    assert_eq!(near.recv(&mut [0; 9]).unwrap(), 7);
}

#[test]
fn more_pieces_than_one_call_takes_are_refused() {
    let (memory, _file) = Memory::memfd("guest", 1 << 16, 0).unwrap();
    let (near, _far) = UnixDatagram::pair().unwrap();
    let scattered: Vec<_> = (0..1024).map(|at| (at * 8, 4)).collect();
    let many = pieces(&memory, &scattered);
    let refused = Reader::new(&many).write_message(near.as_fd(), b"head");
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    let fewer = pieces(&memory, &scattered[1..]);
    assert_eq!(
        Reader::new(&fewer).write_message(near.as_fd(), b"head").unwrap(),
        4 * 1023
    );
}

#[test]
fn a_message_without_a_whole_head_is_an_error() {
    let (memory, _file) = Memory::memfd("guest", 1 << 16, 0).unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.send(b"he").unwrap();
    let space = pieces(&memory, &[(100, 10)]);
    let error = Writer::new(&space).read_message(near.as_fd(), &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}
