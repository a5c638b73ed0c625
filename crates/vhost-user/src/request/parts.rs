//! The parts of a message, payload and files, each checked as it is taken.

use std::os::fd::OwnedFd;

use zerocopy::FromBytes;

use crate::Malformed;
use crate::message::{
    Config, Inflight, MAX_CONFIG, MAX_FILES, MemoryRegion, MemoryTable, RequestCode, VRING_INDEX_MASK, VRING_NO_FILE,
};

/// What is left of a message while it is parsed.
pub(super) struct Parts<'a> {
    pub(super) code: RequestCode,
    pub(super) payload: &'a [u8],
    pub(super) files: Vec<OwnedFd>,
}

impl Parts<'_> {
    /// `request`, which has no payload.
    pub(super) fn nothing<T>(&self, request: T) -> Result<T, Malformed> {
        let () = self.object()?;
        Ok(request)
    }

    /// A payload of a fixed size.
    pub(super) fn object<T: FromBytes>(&self) -> Result<T, Malformed> {
        let (object, rest) = self.prefix()?;
        self.padding(rest)?;
        Ok(object)
    }

    pub(super) fn prefix<T: FromBytes>(&self) -> Result<(T, &[u8]), Malformed> {
        T::read_from_prefix(self.payload).map_err(|_| self.wrong_size(size_of::<T>()))
    }

    /// Accepts zeros behind the end of a payload. Some frontends send a structure that has room for more: User-Mode Linux 6.1 sends
    /// 72 bytes for a memory table of one region, which takes 40.
    fn padding(&self, rest: &[u8]) -> Result<(), Malformed> {
        if rest.iter().any(|&byte| byte != 0) {
            return Err(self.wrong_size(self.payload.len() - rest.len()));
        }
        Ok(())
    }

    pub(super) fn memory_table(&mut self) -> Result<Vec<(MemoryRegion, OwnedFd)>, Malformed> {
        let (MemoryTable { count, .. }, rest) = self.prefix()?;
        let count = count as usize;
        if count > MAX_FILES {
            return Err(self.value("number of regions", count as u64));
        }
        let length = count * size_of::<MemoryRegion>();
        let wrong_size = || self.wrong_size(size_of::<MemoryTable>() + length);
        let (table, rest) = rest.split_at_checked(length).ok_or_else(wrong_size)?;
        self.padding(rest)?;
        if self.files.len() != count {
            return Err(self.wrong_files(count));
        }
        let regions: Vec<MemoryRegion> = table
            .chunks_exact(size_of::<MemoryRegion>())
            .map(|bytes| MemoryRegion::read_from_bytes(bytes).map_err(|_| wrong_size()))
            .collect::<Result<_, _>>()?;
        Ok(regions.into_iter().zip(self.files.drain(..)).collect())
    }

    /// The header of a write to configuration space and as many bytes as it announces, all inside of it.
    pub(super) fn written_config(&self) -> Result<(Config, &[u8]), Malformed> {
        let (config, bytes): (Config, _) = self.prefix()?;
        let end = u64::from(config.offset) + u64::from(config.size);
        if end > MAX_CONFIG as u64 {
            return Err(self.value("offset plus size", end));
        }
        let size = config.size as usize;
        let (bytes, rest) = bytes
            .split_at_checked(size)
            .ok_or_else(|| self.wrong_size(size_of::<Config>() + size))?;
        self.padding(rest)?;
        Ok((config, bytes))
    }

    /// The numbers of a record of requests in flight. The bytes that pad the structure may have any value, or be left out.
    pub(super) fn inflight(&self) -> Result<Inflight, Malformed> {
        const FIELDS: usize = size_of::<Inflight>() - size_of::<u32>();
        let expected = size_of::<Inflight>();
        let wrong_size = || self.wrong_size(expected);
        let (fields, rest) = self.payload.split_at_checked(FIELDS).ok_or_else(wrong_size)?;
        self.padding(rest.get(size_of::<u32>()..).unwrap_or_default())?;
        let mut bytes = [0; size_of::<Inflight>()];
        bytes[..FIELDS].copy_from_slice(fields);
        Inflight::read_from_bytes(&bytes).map_err(|_| wrong_size())
    }

    pub(super) fn file(&mut self) -> Result<OwnedFd, Malformed> {
        if self.files.len() > 1 {
            return Err(self.wrong_files(1));
        }
        self.files.pop().ok_or(Malformed::Files {
            request: self.code,
            files: 0,
            expected: 1,
        })
    }

    /// The ring's index, and its file unless bit 8 says that there is none.
    pub(super) fn vring_file(&mut self) -> Result<(u32, Option<OwnedFd>), Malformed> {
        let number: u64 = self.object()?;
        if number & !(VRING_INDEX_MASK | VRING_NO_FILE) != 0 {
            return Err(self.value("index and flags", number));
        }
        let file = if number & VRING_NO_FILE == 0 {
            Some(self.file()?)
        } else {
            None
        };
        Ok(((number & VRING_INDEX_MASK) as u32, file))
    }

    pub(super) fn no_files(&self) -> Result<(), Malformed> {
        if !self.files.is_empty() {
            return Err(self.wrong_files(0));
        }
        Ok(())
    }

    fn wrong_size(&self, expected: usize) -> Malformed {
        Malformed::Size {
            request: self.code,
            size: self.payload.len(),
            expected,
        }
    }

    fn wrong_files(&self, expected: usize) -> Malformed {
        Malformed::Files {
            request: self.code,
            files: self.files.len(),
            expected,
        }
    }

    pub(super) fn value(&self, field: &'static str, value: u64) -> Malformed {
        Malformed::Value {
            request: self.code,
            field,
            value,
        }
    }
}
