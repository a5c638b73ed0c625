//! FUSE messages as a guest's kernel sends them, written into one buffer repeatedly.

use driver::Shape;
use driver::fs::{IN_HEADER, OUT_HEADER, field_u32, field_u64, opcode};
use rustix::process::{getegid, geteuid, getpid};

use crate::error::Error;

/// Room for a header, the longest arguments and a name.
const ROOM: usize = 512;
/// `fuse_entry_out`, `fuse_open_out`, `fuse_attr_out` and `fuse_write_out`.
const ENTRY_OUT: u32 = 128;
const OPEN_OUT: u32 = 16;
const ATTR_OUT: u32 = 104;
const WRITE_OUT: u32 = 8;
/// The longest reply apart from data: that of CREATE.
const REPLY_MOST: usize = OUT_HEADER + ENTRY_OUT as usize + OPEN_OUT as usize;

/// One message on its way to the ring.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: [u8; ROOM],
    length: usize,
    data_out: u32,
    reply: u32,
    data_in: u32,
    unique: u64,
    caller: [u32; 3],
}

impl Message {
    /// Messages of this process's own user, numbered from `first` on.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            bytes: [0; ROOM],
            length: 0,
            data_out: 0,
            reply: 0,
            data_in: 0,
            unique: first,
            caller: [
                geteuid().as_raw(),
                getegid().as_raw(),
                getpid().as_raw_nonzero().get().cast_unsigned(),
            ],
        }
    }

    /// Header, arguments and names.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(crate) fn unique(&self) -> u64 {
        self.unique
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            request: self.length as u32,
            data_out: self.data_out,
            reply: self.reply,
            data_in: self.data_in,
        }
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &[u8]) {
        self.begin(opcode::LOOKUP, parent, ENTRY_OUT);
        self.name(name);
    }

    /// Without a reply; goes over the queue for urgent messages.
    pub(crate) fn forget(&mut self, node: u64, lookups: u64) {
        self.begin(opcode::FORGET, node, 0);
        self.words(&[lookups]);
        self.reply = 0;
        self.finish();
    }

    pub(crate) fn getattr(&mut self, node: u64) {
        self.begin(opcode::GETATTR, node, ATTR_OUT);
        self.words(&[0, 0]);
        self.finish();
    }

    pub(crate) fn open(&mut self, node: u64, flags: u32) {
        self.begin(opcode::OPEN, node, OPEN_OUT);
        self.words(&[flags.into()]);
        self.finish();
    }

    pub(crate) fn create(&mut self, parent: u64, name: &[u8], flags: u32, mode: u32) {
        self.begin(opcode::CREATE, parent, ENTRY_OUT + OPEN_OUT);
        self.words(&[u64::from(flags) | u64::from(mode) << 32, 0o022]);
        self.name(name);
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &[u8]) {
        self.begin(opcode::UNLINK, parent, 0);
        self.name(name);
    }

    pub(crate) fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) {
        self.transfer(opcode::READ, node, handle, offset, size);
        self.data_in = size;
        self.finish();
    }

    /// Of the data that the slot holds.
    pub(crate) fn write(&mut self, node: u64, handle: u64, offset: u64, size: u32) {
        self.transfer(opcode::WRITE, node, handle, offset, size);
        self.reply += WRITE_OUT;
        self.data_out = size;
        self.finish();
    }

    pub(crate) fn flush(&mut self, node: u64, handle: u64) {
        self.begin(opcode::FLUSH, node, 0);
        self.words(&[handle, 0, 0]);
        self.finish();
    }

    pub(crate) fn release(&mut self, node: u64, handle: u64) {
        self.begin(opcode::RELEASE, node, 0);
        self.words(&[handle, 0, 0]);
        self.finish();
    }

    pub(crate) fn opendir(&mut self, node: u64) {
        self.begin(opcode::OPENDIR, node, OPEN_OUT);
        self.words(&[0]);
        self.finish();
    }

    pub(crate) fn readdirplus(&mut self, node: u64, handle: u64, offset: u64, size: u32) {
        self.transfer(opcode::READDIRPLUS, node, handle, offset, size);
        self.data_in = size;
        self.finish();
    }

    pub(crate) fn releasedir(&mut self, node: u64, handle: u64) {
        self.begin(opcode::RELEASEDIR, node, 0);
        self.words(&[handle, 0, 0]);
        self.finish();
    }

    /// `fuse_read_in`, which `fuse_write_in` equals in shape.
    fn transfer(&mut self, opcode: u32, node: u64, handle: u64, offset: u64, size: u32) {
        self.begin(opcode, node, 0);
        self.words(&[handle, offset, size.into(), 0, 0]);
    }

    fn begin(&mut self, opcode: u32, node: u64, reply_arguments: u32) {
        // Linux counts in steps of 2.
        self.unique += 2;
        self.length = 4;
        self.put(&opcode.to_le_bytes());
        self.words(&[self.unique, node]);
        for word in self.caller {
            self.put(&word.to_le_bytes());
        }
        self.put(&[0; 4]);
        debug_assert_eq!(self.length, IN_HEADER);
        self.reply = OUT_HEADER as u32 + reply_arguments;
        self.data_out = 0;
        self.data_in = 0;
    }

    fn words(&mut self, words: &[u64]) {
        for word in words {
            self.put(&word.to_le_bytes());
        }
    }

    /// The last of a message.
    fn name(&mut self, name: &[u8]) {
        self.put(name);
        self.put(b"\0");
        self.finish();
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn finish(&mut self) {
        let length = self.length as u32 + self.data_out;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
    }
}

/// What came back: header, arguments, and how much data.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: [u8; REPLY_MOST],
    /// Bytes of the reply's arguments and data.
    pub(crate) length: u32,
    /// The errno, 0 for none.
    pub(crate) error: i32,
}

impl Reply {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; REPLY_MOST],
            length: 0,
            error: 0,
        }
    }

    /// Takes the header apart and holds it against the used length and the request (VIRTIO 1.2 5.11.6.1).
    pub(crate) fn check(&mut self, unique: u64, written: u32) -> Result<(), Error> {
        let length = field_u32(&self.bytes, 0);
        if length != written || length < OUT_HEADER as u32 || field_u64(&self.bytes, 8) != unique {
            return Err(Error::BadReply { unique, written });
        }
        self.length = length - OUT_HEADER as u32;
        self.error = -field_u32(&self.bytes, 4).cast_signed();
        Ok(())
    }

    /// An error of the file system, which no workload expects, ends the run.
    pub(crate) fn expect_success(&self, what: &'static str) -> Result<(), Error> {
        match self.error {
            0 => Ok(()),
            errno => Err(Error::Refused {
                what,
                source: std::io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// The node of LOOKUP and CREATE.
    pub(crate) fn node(&self) -> u64 {
        field_u64(&self.bytes, OUT_HEADER)
    }

    /// The handle of OPEN and OPENDIR.
    pub(crate) fn handle(&self) -> u64 {
        field_u64(&self.bytes, OUT_HEADER)
    }

    /// The handle of CREATE.
    pub(crate) fn created_handle(&self) -> u64 {
        field_u64(&self.bytes, OUT_HEADER + ENTRY_OUT as usize)
    }

    /// The open flags of OPEN.
    pub(crate) fn open_flags(&self) -> u32 {
        field_u32(&self.bytes, OUT_HEADER + 8)
    }

    /// The open flags of CREATE.
    pub(crate) fn created_flags(&self) -> u32 {
        field_u32(&self.bytes, OUT_HEADER + ENTRY_OUT as usize + 8)
    }

    /// Bytes that WRITE wrote.
    pub(crate) fn wrote(&self) -> u32 {
        field_u32(&self.bytes, OUT_HEADER)
    }
}
