//! Checked lists of host ranges.
#![expect(
    unsafe_code,
    reason = "promises that a range of mapped memory may go to another thread"
)]

use std::sync::Arc;

use crate::sigbus::is_range_lost;
use crate::window_area::WindowArea;
use crate::{Memory, OutOfMemory};

/// One range of host memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) start: *mut u8,
    pub(crate) length: usize,
    pub(crate) kind: Kind,
}

/// Who may touch a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Memory: anybody, by atomics.
    Memory,
    /// Part of a window: the kernel, for which a touch may fail.
    Window,
    /// No range at all but a number of bytes that cannot be reached: nobody.
    Nowhere,
}

impl Piece {
    /// Whether it lies in a region that has lost memory.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        is_range_lost(self.start, self.length)
    }

    /// The address behind it.
    fn end(&self) -> *mut u8 {
        self.start.wrapping_add(self.length)
    }
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
    /// Every range lies in a region of `memory` or in one of `windows`, and the list is never handed out for change.
    list: Vec<Piece>,
    /// Kept mapped for the list.
    windows: Vec<Arc<WindowArea>>,
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
            windows: Vec::new(),
            total: 0,
            hint: 0,
        }
    }

    /// Appends `length` bytes of guest memory from `guest_address` on. They may straddle adjacent regions, and may lie in a window.
    ///
    /// Refused, with the list as before, if a byte of them is neither. No bytes are fine anywhere.
    #[inline]
    pub fn push(&mut self, guest_address: u64, length: u64) -> Result<(), OutOfMemory> {
        if length == 0 {
            return Ok(());
        }
        let refused = OutOfMemory { guest_address, length };
        let Some((index, region)) = self.memory.find(guest_address, self.hint) else {
            return self.push_scattered(guest_address, length);
        };
        self.hint = index;
        let offset = guest_address - region.guest_address;
        if length > region.size - offset {
            return self.push_scattered(guest_address, length);
        }
        let start = region.host(offset);
        self.total = self.total.checked_add(length as usize).ok_or(refused)?;
        // A guest gives a buffer for each page, and the kernel takes its time for each range.
        match self.list.last_mut() {
            Some(last) if last.kind == Kind::Memory && last.end() == start && last.start >= region.host(0) => {
                last.length += length as usize;
            }
            _ => self.list.push(Piece {
                start,
                length: length as usize,
                kind: Kind::Memory,
            }),
        }
        Ok(())
    }

    /// Appends a buffer, which may lie anywhere: what is neither memory nor in a known window has its place in the run, and a
    /// cursor that comes there ends with an error. It may be a window that nobody told of.
    #[inline]
    pub fn push_buffer(&mut self, guest_address: u64, length: u32) {
        if self.push(guest_address, u64::from(length)).is_err() {
            self.total = self.total.saturating_add(length as usize);
            self.list.push(Piece {
                start: std::ptr::null_mut(),
                length: length as usize,
                kind: Kind::Nowhere,
            });
        }
    }

    /// Empties the list for the next run.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
        self.windows.clear();
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

    #[inline]
    pub(crate) fn windows(&self) -> &[Arc<WindowArea>] {
        &self.windows
    }

    /// The rare cases: the range goes on in the next region, or lies in a window.
    #[cold]
    fn push_scattered(&mut self, guest_address: u64, length: u64) -> Result<(), OutOfMemory> {
        let refused = OutOfMemory { guest_address, length };
        guest_address.checked_add(length).ok_or(refused)?;
        let total = self
            .total
            .checked_add(usize::try_from(length).map_err(|_| refused)?)
            .ok_or(refused)?;
        let before = self.list.len();
        let (mut address, mut left) = (guest_address, length);
        while left > 0 {
            let Some(piece) = self.piece(address, left) else {
                self.list.truncate(before);
                return Err(refused);
            };
            self.list.push(piece);
            address += piece.length as u64;
            left -= piece.length as u64;
        }
        self.total = total;
        Ok(())
    }

    /// The range from `guest_address` on, of at most `limit` bytes, as far as it goes.
    fn piece(&mut self, guest_address: u64, limit: u64) -> Option<Piece> {
        if let Some((index, region)) = self.memory.find(guest_address, self.hint) {
            self.hint = index;
            let offset = guest_address - region.guest_address;
            return Some(Piece {
                start: region.host(offset),
                length: limit.min(region.size - offset) as usize,
                kind: Kind::Memory,
            });
        }
        let area = self.memory.find_window(guest_address)?;
        let offset = guest_address - area.guest_address;
        let piece = Piece {
            start: area.host(offset)?,
            length: limit.min(area.size - offset) as usize,
            kind: Kind::Window,
        };
        self.windows.push(area);
        Some(piece)
    }
}
