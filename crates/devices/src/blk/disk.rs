//! Carries out requests on the image, and writes their answers.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use guestmem::{Reader, Writer};
use image::Image;
use tracing::{debug, error};

use super::SERIAL_MAX;
use super::cache::Cache;
use super::request::{Request, Segment, Status};

/// The image and all state that outlives guests and lanes.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) image: Image,
    pub(super) cache: Cache,
    /// Whether the guest can give up space.
    pub(super) discard: bool,
    serial: [u8; SERIAL_MAX],
    /// An error of the image was reported.
    has_failed: AtomicBool,
}

impl Disk {
    /// `serial` has at most [`SERIAL_MAX`] bytes.
    pub(super) fn new(image: Image, serial: &str, discard: bool) -> Self {
        let mut padded = [0; SERIAL_MAX];
        for (to, from) in padded.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self {
            image,
            cache: Cache::default(),
            discard,
            serial: padded,
            has_failed: AtomicBool::new(false),
        }
    }

    /// Changes when writes are durable. Earlier writes are durable at once, which a driver need not know (VIRTIO 1.1 5.2.6.2).
    pub(super) fn set_writeback(&self, writeback: bool) {
        self.cache.set(writeback);
        if !writeback && let Err(error) = self.image.flush() {
            self.report("flush", &error);
        }
    }

    /// Carries out a request and answers it; `reader` stands at its data. Returns the used length.
    pub(super) fn perform(&self, request: &Request, reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> u32 {
        let space = writer.remaining().saturating_sub(1);
        let Ok(mut data) = writer.split_at(space) else { return 0 };
        let (done, filled) = match request {
            Request::Read { offset, length } => (self.image.read(*offset, *length, &mut data), *length),
            Request::Write { offset, length } => (self.write(*offset, *length, reader), 0),
            Request::Flush => (self.image.flush(), 0),
            Request::Identify => (self.identify(&mut data), SERIAL_MAX),
            Request::Discard(segments) => (self.discard(segments), 0),
            Request::WriteZeroes(segments) => (self.write_zeroes(segments), 0),
        };
        match done {
            Ok(()) => put_status(writer, Status::Ok, filled, space),
            Err(error) => self.fail(request, &error, writer, space),
        }
    }

    /// Answers a request that failed. `writer` stands at the status, behind `space` bytes for data.
    fn fail(&self, request: &Request, error: &io::Error, writer: &mut Writer<'_>, space: usize) -> u32 {
        self.report(request.name(), error);
        put_status(writer, Status::IoError, 0, space)
    }

    /// Answers a read or write that the kernel has carried out. Returns the used length.
    pub(super) fn answer(&self, request: &Request, result: io::Result<()>, writer: &mut Writer<'_>) -> u32 {
        let space = writer.remaining().saturating_sub(1);
        if writer.split_at(space).is_err() {
            return 0;
        }
        match (result, request) {
            (Ok(()), Request::Read { length, .. }) => put_status(writer, Status::Ok, *length, space),
            (Ok(()), _) => put_status(writer, Status::Ok, 0, space),
            (Err(error), _) => self.fail(request, &error, writer, space),
        }
    }

    fn write(&self, offset: u64, length: usize, reader: &mut Reader<'_>) -> io::Result<()> {
        self.image.write(offset, length, reader, !self.cache.is_writeback())
    }

    /// The buffer has 20 bytes (VIRTIO 1.1 5.2.6); nothing fits in a shorter one.
    fn identify(&self, data: &mut Writer<'_>) -> io::Result<()> {
        Ok(data.write_all(&self.serial)?)
    }

    fn discard(&self, segments: &[Segment]) -> io::Result<()> {
        for segment in segments {
            self.image.discard(segment.offset, segment.length)?;
        }
        self.keep_durable()
    }

    fn write_zeroes(&self, segments: &[Segment]) -> io::Result<()> {
        for segment in segments {
            let unmap = segment.unmap && self.discard;
            self.image.write_zeros(segment.offset, segment.length, unmap)?;
        }
        self.keep_durable()
    }

    fn keep_durable(&self) -> io::Result<()> {
        if self.cache.is_writeback() {
            Ok(())
        } else {
            self.image.flush()
        }
    }

    /// Logs the first failure at level error: a guest can repeat it at will. A buffer that cannot be reached is the guest's own.
    fn report(&self, action: &str, error: &io::Error) {
        let is_guests = matches!(error.kind(), io::ErrorKind::UnexpectedEof) && action == Request::Identify.name()
            || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::FAULT);
        if is_guests || self.has_failed.swap(true, Ordering::Relaxed) {
            debug!("a {action} failed: {error}");
        } else {
            error!(
                "a {action} failed: {error}; the guest gets an I/O error, and further ones are logged at level debug"
            );
        }
    }
}

impl Request {
    fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush => "flush",
            Self::Identify => "request for the serial number",
            Self::Discard(_) => "discard",
            Self::WriteZeroes(_) => "write of zeros",
        }
    }
}

/// Answers a request that is refused. Returns the used length.
pub(super) fn refuse(status: Status, writer: &mut Writer<'_>) -> u32 {
    let space = writer.remaining().saturating_sub(1);
    match writer.split_at(space) {
        Ok(_) => put_status(writer, status, 0, space),
        Err(_) => 0,
    }
}

/// Writes the status behind `space` bytes for data, `filled` of which have been written. Returns the used length: it counts from
/// the start of the space, so that the status counts only if no gap lies before it (VIRTIO 1.1 2.6.8.2).
fn put_status(writer: &mut Writer<'_>, status: Status, filled: usize, space: usize) -> u32 {
    if writer.write_all(&[status as u8]).is_err() {
        return 0;
    }
    let used = if filled == space { space + 1 } else { filled };
    u32::try_from(used).unwrap_or(u32::MAX)
}
