//! The expected contents of the file: a byte vector on which the operations are trivial.

use std::ops::Range;

/// The file as it should be.
#[derive(Debug, Default)]
pub(super) struct Model {
    bytes: Vec<u8>,
}

impl Model {
    /// The file's length.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What the file holds in a range, which may reach past the end: then it is shorter.
    pub(super) fn bytes(&self, range: Range<u64>) -> &[u8] {
        let end = range.end.min(self.length());
        &self.bytes[range.start.min(end) as usize..end as usize]
    }

    /// Writes bytes; a gap behind the end becomes zeros.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.truncate(end.max(self.length()));
        self.bytes[offset as usize..end as usize].copy_from_slice(bytes);
    }

    /// Shortens the file, or lengthens it by zeros.
    pub(super) fn truncate(&mut self, length: u64) {
        self.bytes.resize(length as usize, 0);
    }

    /// Makes zeros of a range, as far as the file reaches.
    pub(super) fn clear(&mut self, range: Range<u64>) {
        let end = range.end.min(self.length());
        self.bytes[range.start.min(end) as usize..end as usize].fill(0);
    }

    /// Takes a range out; what follows moves down.
    pub(super) fn collapse(&mut self, range: Range<u64>) {
        self.bytes.drain(range.start as usize..range.end as usize);
    }

    /// Puts zeros in; what follows moves up.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let zeros = (range.start..range.end).map(|_| 0);
        self.bytes.splice(range.start as usize..range.start as usize, zeros);
    }

    /// Copies `length` bytes from one place of the file to another.
    pub(super) fn copy(&mut self, from: u64, to: u64, length: u64) {
        let bytes = self.bytes(from..from + length).to_vec();
        self.write(to, &bytes);
    }
}
