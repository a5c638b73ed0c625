//! Guest RAM seen from the host: checked address translation, shared access, cursors over scattered pieces.
//!
//! The guest may change any byte at any time, from another process. Therefore no Rust reference ever points into its
//! memory: bytes are moved by atomic accesses ([`Area`], [`Reader`], [`Writer`]) or by the kernel (`preadv2`,
//! `pwritev2`). Every address is checked against the regions that the front end announced.
//!
//! * [`Memory`] is a snapshot of the mapped regions and translates guest addresses.
//! * [`Area`] is one contiguous range of it, for the rings: loads and stores with a memory order.
//! * [`Pieces`] is a checked list of host ranges; [`Reader`] and [`Writer`] walk over one. [`Vectors`] has it for the kernel.
//!
//! [`Window`] is the other direction: device memory from which the guest maps files.
//!
//! A file that is too short when it arrives is refused. A file that is shortened later costs its region, not the
//! process (SIGBUS). The first access marks the region as lost. Cursors then report [`CursorError::Fault`] there, and
//! [`Area::is_lost`] takes the rings out of service. [`WindowAreas`] are for files that are likely to be shortened.

mod area;
mod copy;
mod cursor;
mod error;
mod memory;
mod pieces;
mod region;
mod sigbus;
mod vectors;
mod window;
mod window_area;

pub use area::Area;
pub use cursor::{Reader, Writer};
pub use error::{CursorError, Error, LostRegion, OutOfMemory};
pub use memory::Memory;
pub use pieces::Pieces;
pub use region::RegionConfig;
pub use rustix::io::ReadWriteFlags as RwFlags;
pub use sigbus::is_any_memory_lost;
pub use vectors::Vectors;
pub use window::{Window, WindowError, WindowMapping};
pub use window_area::WindowAreas;
