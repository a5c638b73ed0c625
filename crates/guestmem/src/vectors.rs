//! Ranges of guest memory in the kernel's terms, for transfers that go on while their caller does something else.
#![expect(unsafe_code, reason = "promises that a list of ranges may go to another thread")]

use std::fmt;
use std::sync::Arc;

use crate::pieces::Kind;
use crate::sigbus::is_range_lost;
use crate::window_area::WindowArea;
use crate::{Memory, Pieces};

/// The kernel takes at most this many ranges a call (UIO_MAXIOV).
const MOST: usize = 1024;

/// A list of checked ranges that stay mapped as long as it lives.
pub struct Vectors {
    list: Vec<libc::iovec>,
    _memory: Memory,
    _windows: Vec<Arc<WindowArea>>,
}

// SAFETY: the ranges stay mapped as long as the value lives, on any thread; only the kernel touches them.
unsafe impl Send for Vectors {}

impl Vectors {
    /// The ranges of `length` bytes behind the first `offset` of `pieces`. `None` if they are too many for a call, if some cannot
    /// be reached, or if there are not so many bytes.
    #[must_use]
    pub fn new(pieces: &Pieces, offset: usize, length: usize) -> Option<Vectors> {
        let (mut skip, mut left) = (offset, length);
        let mut list = Vec::with_capacity(pieces.list().len().min(MOST));
        for piece in pieces.list() {
            if left == 0 {
                break;
            }
            if skip >= piece.length {
                skip -= piece.length;
                continue;
            }
            if piece.kind == Kind::Nowhere || piece.is_lost() || list.len() == MOST {
                return None;
            }
            let taken = left.min(piece.length - skip);
            list.push(libc::iovec {
                iov_base: piece.start.wrapping_add(skip).cast(),
                iov_len: taken,
            });
            (skip, left) = (0, left - taken);
        }
        (left == 0).then(|| Vectors {
            list,
            _memory: pieces.memory().clone(),
            _windows: pieces.windows().to_vec(),
        })
    }

    /// The list, valid as long as the value lives.
    #[must_use]
    pub fn as_ptr(&self) -> *const libc::iovec {
        self.list.as_ptr()
    }

    /// Number of ranges, at most 1024.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.list.len() as u32
    }

    /// Whether one of them lies in a region that has lost memory. Ask after the transfer: bytes that it moved then may be none of
    /// the guest's.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.list
            .iter()
            .any(|range| is_range_lost(range.iov_base.cast(), range.iov_len))
    }
}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vectors")
            .field("count", &self.list.len())
            .finish_non_exhaustive()
    }
}
