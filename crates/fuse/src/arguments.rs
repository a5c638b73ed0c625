//! The arguments of a request: copied out of guest memory once, then taken one by one.

use std::ffi::CStr;

use guestmem::Reader;
use zerocopy::FromBytes;

use crate::fs::{Errno, Name, Result};
use crate::limits::MAX_ARGUMENTS;
use crate::wire;

/// Two names of 255 bytes, the structure in front of them and one extension: all but long link targets and attribute
/// values fit without an allocation.
const INLINE: usize = 2 * 256 + size_of::<wire::Rename2In>() + 16;

/// Where the arguments of one request are copied to.
pub(crate) struct Buffer {
    inline: [u8; INLINE],
    heap: Vec<u8>,
}

impl Buffer {
    pub(crate) fn new() -> Buffer {
        Buffer {
            inline: [0; INLINE],
            heap: Vec::new(),
        }
    }

    /// Takes the next `length` bytes of `reader`.
    pub(crate) fn fill(&mut self, reader: &mut Reader<'_>, length: usize) -> Result<&[u8]> {
        if length > MAX_ARGUMENTS {
            return Err(Errno::E2BIG.rule("its arguments are longer than those of any operation"));
        }
        let bytes = match self.inline.get_mut(..length) {
            Some(bytes) => bytes,
            None => {
                self.heap.resize(length, 0);
                &mut self.heap[..]
            }
        };
        reader.read_exact(bytes)?;
        Ok(bytes)
    }
}

/// Arguments not taken yet.
pub(crate) struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Arguments<'a> {
        Arguments(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take<T: FromBytes>(&mut self) -> Result<T> {
        let (object, rest) = T::read_from_prefix(self.0).map_err(|_| malformed())?;
        self.0 = rest;
        Ok(object)
    }

    pub(crate) fn bytes(&mut self, length: u32) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length as usize).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn c_str(&mut self) -> Result<&'a CStr> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| malformed())?;
        self.0 = &self.0[string.count_bytes() + 1..];
        Ok(string)
    }

    pub(crate) fn name(&mut self) -> Result<Name<'a>> {
        Name::new(self.c_str()?).ok_or_else(|| Errno::EINVAL.rule("the name is not one component of a path"))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err(malformed()),
        }
    }
}

pub(crate) fn malformed() -> Errno {
    Errno::EINVAL.rule("its arguments are not those of its operation")
}
