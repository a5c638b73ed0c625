//! Buffers of our own that are aligned for direct I/O.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Alignment that every file system and device accepts.
const PAGE: usize = 4096;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Bytes at the start of a page.
pub(crate) struct Pages(Vec<Page>);

impl Pages {
    /// `length` zeros, rounded up to pages.
    pub(crate) fn zeroed(length: usize) -> Pages {
        Pages(vec![Page([0; PAGE]); length.div_ceil(PAGE)])
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice().as_mut_bytes()
    }
}
