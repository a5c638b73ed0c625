//! The saved state of a stopped session, for another process to resume: numbers and descriptors.

use std::os::fd::OwnedFd;

use vhost_user::message::{Inflight, MemoryRegion, VringAddress};

/// Version of the format; changes whenever the numbers change.
const FORMAT: u64 = 2;
/// Maximum of every count; a larger one is not from a saved session.
const MOST: u64 = 1 << 16;

/// The state of a stopped session. The front end and the driver notice only that no queue is served.
#[derive(Debug)]
pub struct Saved {
    pub(crate) stream: OwnedFd,
    /// The beginning of a message, with its files.
    pub(crate) arrived: (Vec<u8>, Vec<OwnedFd>),
    pub(crate) negotiated: u64,
    pub(crate) connection: SavedConnection,
}

/// The setup of a connection.
#[derive(Debug)]
pub(crate) struct SavedConnection {
    pub(crate) features: u64,
    pub(crate) status: u8,
    pub(crate) channel: Option<OwnedFd>,
    pub(crate) memory: Vec<(MemoryRegion, OwnedFd)>,
    /// The record of chains in flight.
    pub(crate) inflight: Option<(Inflight, OwnedFd)>,
    pub(crate) queues: Vec<SavedQueue>,
}

/// The state of a stopped queue.
#[derive(Debug, Default)]
pub(crate) struct SavedQueue {
    pub(crate) size: u16,
    pub(crate) base: Option<u32>,
    pub(crate) address: Option<VringAddress>,
    pub(crate) enabled: bool,
    /// It ran.
    pub(crate) kick: Option<OwnedFd>,
    pub(crate) call: Option<OwnedFd>,
    pub(crate) error: Option<OwnedFd>,
}

/// The input is not a saved session of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a saved session, or a session of another version")]
pub struct NotSaved;

impl Saved {
    /// Returns the numbers and the descriptors, to be passed to another process together, each in order.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut parts = Parts::default();
        parts.number(FORMAT);
        parts.files.push(self.stream);
        let (bytes, files) = self.arrived;
        parts.number(bytes.len() as u64);
        parts.number(files.len() as u64);
        bytes.iter().for_each(|byte| parts.number(u64::from(*byte)));
        parts.files.extend(files);
        let connection = self.connection;
        parts.numbers([self.negotiated, connection.features, connection.status.into()]);
        parts.file(connection.channel);
        parts.number(connection.memory.len() as u64);
        for (region, file) in connection.memory {
            let numbers = [
                region.guest_address,
                region.size,
                region.user_address,
                region.mmap_offset,
            ];
            parts.numbers(numbers);
            parts.files.push(file);
        }
        let (inflight, file) = connection.inflight.unzip();
        parts.file(file);
        if let Some(inflight) = inflight {
            parts.numbers([
                inflight.mmap_size,
                inflight.mmap_offset,
                inflight.num_queues.into(),
                inflight.queue_size.into(),
            ]);
        }
        parts.number(connection.queues.len() as u64);
        connection.queues.into_iter().for_each(|queue| parts.queue(queue));
        (parts.bytes, parts.files)
    }

    /// Restores the state from the parts returned by [`into_parts`](Self::into_parts).
    pub fn from_parts(bytes: &[u8], files: Vec<OwnedFd>) -> Result<Saved, NotSaved> {
        let mut parts = Given {
            bytes,
            files: files.into_iter(),
        };
        if parts.number()? != FORMAT {
            return Err(NotSaved);
        }
        let stream = parts.files.next().ok_or(NotSaved)?;
        let (length, count) = (parts.count()?, parts.count()?);
        let arrived = (0..length).map(|_| parts.small()).collect::<Result<_, _>>()?;
        let arrived_files = parts.files.by_ref().take(count as usize).collect();
        let (negotiated, features, status) = (parts.number()?, parts.number()?, parts.small()?);
        let channel = parts.file()?;
        let memory = (0..parts.count()?).map(|_| parts.region()).collect::<Result<_, _>>()?;
        let inflight = match parts.file()? {
            Some(file) => Some((parts.inflight()?, file)),
            None => None,
        };
        let queues = (0..parts.count()?).map(|_| parts.queue()).collect::<Result<_, _>>()?;
        if !parts.bytes.is_empty() || parts.files.next().is_some() {
            return Err(NotSaved);
        }
        Ok(Saved {
            stream,
            arrived: (arrived, arrived_files),
            negotiated,
            connection: SavedConnection {
                features,
                status,
                channel,
                memory,
                inflight,
                queues,
            },
        })
    }
}

#[derive(Default)]
struct Parts {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Parts {
    fn number(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.into_iter().for_each(|number| self.number(number));
    }

    fn file(&mut self, file: Option<OwnedFd>) {
        self.number(file.is_some().into());
        self.files.extend(file);
    }

    fn queue(&mut self, queue: SavedQueue) {
        self.number(queue.size.into());
        self.number(queue.base.map_or(u64::MAX, u64::from));
        self.number(queue.enabled.into());
        self.number(queue.address.is_some().into());
        if let Some(at) = queue.address {
            let numbers = [
                u64::from(at.index),
                at.flags.into(),
                at.descriptor,
                at.used,
                at.available,
                at.log,
            ];
            self.numbers(numbers);
        }
        for file in [queue.kick, queue.call, queue.error] {
            self.file(file);
        }
    }
}

struct Given<'a> {
    bytes: &'a [u8],
    files: std::vec::IntoIter<OwnedFd>,
}

impl Given<'_> {
    fn number(&mut self) -> Result<u64, NotSaved> {
        let (number, rest) = self.bytes.split_first_chunk().ok_or(NotSaved)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, NotSaved> {
        T::try_from(self.number()?).map_err(|_| NotSaved)
    }

    fn count(&mut self) -> Result<u64, NotSaved> {
        let count = self.number()?;
        if count <= MOST { Ok(count) } else { Err(NotSaved) }
    }

    fn file(&mut self) -> Result<Option<OwnedFd>, NotSaved> {
        match self.number()? {
            0 => Ok(None),
            _ => Ok(Some(self.files.next().ok_or(NotSaved)?)),
        }
    }

    fn region(&mut self) -> Result<(MemoryRegion, OwnedFd), NotSaved> {
        let region = MemoryRegion {
            guest_address: self.number()?,
            size: self.number()?,
            user_address: self.number()?,
            mmap_offset: self.number()?,
        };
        Ok((region, self.files.next().ok_or(NotSaved)?))
    }

    fn inflight(&mut self) -> Result<Inflight, NotSaved> {
        Ok(Inflight {
            mmap_size: self.number()?,
            mmap_offset: self.number()?,
            num_queues: self.small()?,
            queue_size: self.small()?,
            padding: 0,
        })
    }

    fn queue(&mut self) -> Result<SavedQueue, NotSaved> {
        let size = self.small()?;
        let base = u32::try_from(self.number()?).ok();
        let enabled = self.number()? != 0;
        let address = match self.number()? {
            0 => None,
            _ => Some(VringAddress {
                index: self.small()?,
                flags: self.small()?,
                descriptor: self.number()?,
                used: self.number()?,
                available: self.number()?,
                log: self.number()?,
            }),
        };
        Ok(SavedQueue {
            size,
            base,
            address,
            enabled,
            kick: self.file()?,
            call: self.file()?,
            error: self.file()?,
        })
    }
}
