//! The server allocates nothing for the most frequent requests.
#![expect(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use fuse::deferred::{Answer, OnBlock};
use fuse::failure::{Failure, Failures};
use fuse::fs::{Caller, Entry, FileSystem, Handle, Name, NodeId, Result, WriteTo};
use fuse::server::Server;
use fuse::wire::{self, InitFlags, Opcode};
use guestmem::{Memory, Pieces, Reader, Writer};
use zerocopy::IntoBytes;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator; the counter is a plain cell that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise about `layout` is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` comes from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Ready;

impl FileSystem for Ready {
    fn wants(&self, offered: InitFlags) -> InitFlags {
        offered
    }
    fn lookup(&self, _: &Caller, parent: NodeId, _: Name<'_>) -> Result<Entry> {
        let (attr_timeout, entry_timeout) = (Duration::ZERO, Duration::ZERO);
        Ok(Entry {
            node: parent,
            generation: 0,
            attr: wire::Attr::default(),
            attr_timeout,
            entry_timeout,
        })
    }
    fn getattr(&self, _: &Caller, _: NodeId, _: Option<Handle>) -> Result<(wire::Attr, Duration)> {
        Ok((wire::Attr::default(), Duration::ZERO))
    }
    fn read(&self, _: NodeId, _: Handle, _: u64, len: u32, out: &mut Writer<'_>) -> Result<()> {
        for _ in 0..len {
            out.write_all(b"x").unwrap();
        }
        Ok(())
    }
    fn write(&self, _: &Caller, _: NodeId, to: &WriteTo, data: &mut Reader<'_>) -> Result<u32> {
        data.skip(to.len as usize).unwrap();
        Ok(to.len)
    }
}

/// Sends a request three times; gives the reply's length and the allocations of the last time.
fn allocations(server: &Server<Ready>, opcode: Opcode, arguments: &[&[u8]]) -> (u32, u64) {
    let (memory, _file) = Memory::memfd("fuse-test", 1 << 20, 0).unwrap();
    let arguments = arguments.concat();
    let len = (size_of::<wire::InHeader>() + arguments.len()) as u32;
    let header = wire::InHeader {
        len,
        opcode: opcode as u32,
        nodeid: 1,
        ..Default::default()
    };
    memory.write(0, &[header.as_bytes(), &arguments].concat()).unwrap();
    let (mut readable, mut writable) = (Pieces::new(&memory), Pieces::new(&memory));
    readable.push(0, u64::from(len)).unwrap();
    writable.push(1 << 19, 1 << 16).unwrap();
    let mut last = (0, 0);
    for _ in 0..3 {
        let before = ALLOCATIONS.get();
        let (mut reader, mut writer) = (Reader::new(&readable), Writer::new(&writable));
        let Answer::Done(written) = server.dispatch(&mut reader, &mut writer, OnBlock::Defer) else {
            panic!("what is read is in the page cache");
        };
        last = (written, ALLOCATIONS.get() - before);
    }
    last
}

#[test]
fn frequent_requests_are_served_without_allocating() {
    without_allocating(&Server::new(Ready));
}

/// Whoever wants to be told of failures pays for failures alone.
#[test]
fn requests_whose_failures_would_be_told_are_served_without_allocating() {
    without_allocating(&Server::new(Ready).tell(Arc::new(Silent)));
}

#[derive(Debug)]
struct Silent;

impl Failures for Silent {
    fn failed(&self, _: &Failure<'_>) {}
}

fn without_allocating(server: &Server<Ready>) {
    let init = wire::InitIn {
        major: 7,
        minor: 45,
        ..Default::default()
    };
    assert_eq!(allocations(server, Opcode::Init, &[init.as_bytes()]).0, 80);

    let name = [&[b'n'; 255][..], b"\0"].concat();
    let read = wire::ReadIn {
        size: 4096,
        ..Default::default()
    };
    let write = wire::WriteIn {
        size: 4096,
        ..Default::default()
    };
    assert_eq!(allocations(server, Opcode::Lookup, &[&name]), (16 + 128, 0));
    assert_eq!(allocations(server, Opcode::Getattr, &[&[0; 16]]), (16 + 104, 0));
    assert_eq!(allocations(server, Opcode::Read, &[read.as_bytes()]), (16 + 4096, 0));
    assert_eq!(
        allocations(server, Opcode::Write, &[write.as_bytes(), &[7; 4096]]),
        (16 + 8, 0)
    );
    // The counter counts: a link target of this length does not fit the space kept on the stack.
    let long = [&b"name\0"[..], &[b't'; 4000], b"\0"].concat();
    let (length, allocations) = allocations(server, Opcode::Symlink, &[&long]);
    assert!(length == 16 && allocations > 0);
}
