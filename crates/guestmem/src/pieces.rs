//! Checked lists of host ranges.
#![expect(
    unsafe_code,
    reason = "promises that a range of mapped memory may go to another thread"
)]

use crate::{Memory, OutOfMemory};

/// One range of host memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) start: *mut u8,
    pub(crate) length: usize,
}

// SAFETY: a `Piece` is only reached through the `Pieces` that holds it, which keeps the range mapped; bytes there are
// shared with the guest anyway and only moved by atomics or by the kernel.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

/// A list of checked host ranges that together are one run of bytes.
///
/// It belongs to one [`Memory`] for life, which it keeps mapped, and it is made to be reused: `clear` keeps the space.
#[derive(Debug, Clone)]
pub struct Pieces {
    memory: Memory,
    /// Every range lies in a region of `memory`, and the list is never handed out for change.
    list: Vec<Piece>,
    total: usize,
    /// Number of the region found last; the next address is most likely there too.
    hint: usize,
}

impl Pieces {
    /// An empty list of ranges of `memory`.
    pub fn new(memory: &Memory) -> Pieces {
        Pieces {
            memory: memory.clone(),
            list: Vec::new(),
            total: 0,
            hint: 0,
        }
    }

    /// Appends `length` bytes of guest memory from `guest_address` on. They may straddle adjacent regions.
    ///
    /// Refused, with the list as before, if a byte of them is not guest memory. No bytes are fine anywhere.
    #[inline]
    pub fn push(&mut self, guest_address: u64, length: u64) -> Result<(), OutOfMemory> {
        if length == 0 {
            return Ok(());
        }
        let refused = OutOfMemory { guest_address, length };
        let (index, region) = self.memory.find(guest_address, self.hint).ok_or(refused)?;
        self.hint = index;
        let offset = guest_address - region.guest_address;
        if length > region.size - offset {
            return self.push_straddling(guest_address, length);
        }
        let piece = Piece {
            start: region.host(offset),
            length: length as usize,
        };
        self.total = self.total.checked_add(piece.length).ok_or(refused)?;
        self.list.push(piece);
        Ok(())
    }

    /// Empties the list for the next run.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.total = 0;
    }

    /// Length of the whole run in bytes.
    #[inline]
    pub fn total(&self) -> usize {
        self.total
    }

    /// The memory that the ranges are of.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    pub(crate) fn list(&self) -> &[Piece] {
        &self.list
    }

    /// The rare case: the range goes on in the next region.
    #[cold]
    fn push_straddling(&mut self, guest_address: u64, length: u64) -> Result<(), OutOfMemory> {
        let refused = OutOfMemory { guest_address, length };
        guest_address.checked_add(length).ok_or(refused)?;
        let total = self
            .total
            .checked_add(usize::try_from(length).map_err(|_| refused)?)
            .ok_or(refused)?;
        let before = self.list.len();
        let (mut address, mut left) = (guest_address, length);
        while left > 0 {
            let Some((index, region)) = self.memory.find(address, self.hint) else {
                self.list.truncate(before);
                return Err(refused);
            };
            self.hint = index;
            let offset = address - region.guest_address;
            let part = left.min(region.size - offset);
            self.list.push(Piece {
                start: region.host(offset),
                length: part as usize,
            });
            address += part;
            left -= part;
        }
        self.total = total;
        Ok(())
    }
}
