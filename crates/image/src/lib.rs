//! Disk images of the host: opening with locks, writes of zeros and holes, and many transfers at a time by `io_uring`.
//!
//! [`Image`] is an open raw file or block device. Its methods block. [`Ring`] moves bytes between an image and guest
//! memory while the caller goes on.

mod error;
mod image;
mod lock;
mod pages;
mod ring;

pub use error::Error;
pub use image::{Image, ImageOptions, SECTOR};
pub use ring::{Completion, Ring};
