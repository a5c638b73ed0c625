//! Shared memory of a device into which files are mapped (VIRTIO 1.2 2.10, 5.11.6.4): the device's interface.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A part of a file, and where the guest is to find it in the window. All numbers in bytes, multiples of the page size.
#[derive(Clone, Debug)]
pub struct WindowMapping {
    /// Whose it is, as the device counts: [`Window::release`] takes out all that one owner has.
    pub owner: u64,
    /// The file. Open for writing if `writable`. Two mappings are of the same file if they share this descriptor.
    pub file: Arc<OwnedFd>,
    /// Where the part starts in the file.
    pub file_offset: u64,
    /// Where it starts in the window.
    pub offset: u64,
    /// Its length, not 0.
    pub length: u64,
    /// Whether the guest may write.
    pub writable: bool,
}

/// Reason why a window could not be changed as requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The range does not lie in the window.
    #[error("the range does not lie in the window")]
    OutOfRange,
    /// The front end could not map the file, most likely for lack of resources. An earlier mapping in the range is
    /// kept if at all possible.
    #[error("the front end refused")]
    Refused,
    /// The front end disconnected, or does not answer.
    #[error("the front end does not answer")]
    Unanswered,
    /// The front end waits for the requesting queue. The started change will be finished: repeat the request
    /// afterwards.
    #[error("cancelled, because the front end waits for this queue")]
    CalledOff,
}

/// The window of one connection. Every method may be called from several threads.
pub trait Window: fmt::Debug + Send + Sync {
    /// Size of the window in bytes.
    fn size(&self) -> u64;

    /// Maps a file, in place of earlier mappings in its range. Does nothing if that part of that file is already
    /// mapped there, writable if requested.
    fn map(&self, mapping: &WindowMapping) -> Result<(), WindowError>;

    /// Unmaps a range, which may cut mappings and may have holes.
    fn unmap(&self, offset: u64, length: u64) -> Result<(), WindowError>;

    /// Unmaps all mappings of one owner: at once or, if the front end cannot answer now, before any other change.
    /// Does not wait if the owner has none.
    fn release(&self, owner: u64);

    /// Unmaps the whole window. After an error it still counts as empty: remaining mappings are removed before any
    /// other change.
    fn clear(&self) -> Result<(), WindowError>;
}
