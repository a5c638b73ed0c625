//! The record of chains in flight of all queues, in a file that the front end keeps while no daemon runs.

use std::io;
use std::os::fd::OwnedFd;

use guestmem::{Memory, OutOfMemory, RegionConfig};
use vhost_user::message::Inflight;
use virtqueue::InflightRecord;

/// Each queue's record starts at a multiple of this, so that two lanes write to no common cache line.
const ALIGNMENT: usize = 64;

/// The mapped record. The front end may change it at any time, and shorten its file.
#[derive(Debug)]
pub(crate) struct InflightFile {
    numbers: Inflight,
    memory: Memory,
}

impl InflightFile {
    /// Makes a record for so many queues of `queue_size`, all zeros, in a file that nobody can shorten. It has room for either format,
    /// so that front ends may negotiate that afterwards.
    pub(crate) fn create(queues: u16, queue_size: u16) -> Result<(Inflight, OwnedFd), guestmem::Error> {
        let numbers = Inflight {
            mmap_size: stride(true, queue_size) * u64::from(queues),
            mmap_offset: 0,
            num_queues: queues,
            queue_size,
            padding: 0,
        };
        let (_mapped, file) = Memory::memfd("inflight", numbers.mmap_size, 0)?;
        Ok((numbers, file))
    }

    /// Maps a record. The queue size is checked, 1 to 32768.
    pub(crate) fn map(numbers: Inflight, file: OwnedFd) -> Result<InflightFile, guestmem::Error> {
        let region = RegionConfig {
            guest_address: 0,
            size: numbers.mmap_size,
            user_address: 0,
            file,
            file_offset: numbers.mmap_offset,
        };
        let memory = Memory::map(vec![region])?;
        Ok(InflightFile { numbers, memory })
    }

    /// The record of queue `index`. `None` if the front end did not ask for one, an error if the mapping ends before it does.
    pub(crate) fn of_queue(&self, packed: bool, index: u16) -> Result<Option<InflightRecord>, OutOfMemory> {
        let Inflight {
            num_queues, queue_size, ..
        } = self.numbers;
        if index >= num_queues {
            return Ok(None);
        }
        let start = stride(packed, queue_size) * u64::from(index);
        let area = self.memory.area(start, InflightRecord::bytes(packed, queue_size))?;
        Ok(Some(InflightRecord::new(area, queue_size)))
    }

    /// The numbers, and another descriptor of the file.
    pub(crate) fn parts(&self) -> io::Result<(Inflight, OwnedFd)> {
        let mut regions = self.memory.configs()?;
        let region = regions
            .pop()
            .ok_or_else(|| io::Error::other("a record without a file"))?;
        Ok((self.numbers, region.file))
    }
}

/// Bytes from the record of one queue to that of the next.
fn stride(packed: bool, queue_size: u16) -> u64 {
    InflightRecord::bytes(packed, queue_size).next_multiple_of(ALIGNMENT) as u64
}
