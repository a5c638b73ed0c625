//! A frontend's request, parsed once at the door: inside, nothing is checked again.
//!
//! Zeros behind a payload are accepted as padding. The bytes behind the header of GET_CONFIG are ignored: they only reserve room for
//! the reply. Any other deviation from the protocol is an error.

use std::os::fd::OwnedFd;

use zerocopy::FromBytes;

use crate::message::{
    Config, MAX_CONFIG, MAX_FILES, MemoryRegion, MemoryTable, RequestCode, SingleRegion, VRING_INDEX_MASK,
    VRING_NO_FILE, VringAddress, VringState,
};
use crate::socket::Message;
use crate::{Malformed, ProtocolFeatures};

/// One request of a frontend, with the files that belong to it.
#[derive(Debug)]
#[allow(
    missing_docs,
    reason = "variants and fields are those of the wire structs in `message`"
)]
pub enum Request {
    GetFeatures,
    SetFeatures(u64),
    GetProtocolFeatures,
    SetProtocolFeatures(ProtocolFeatures),
    GetQueueNum,
    SetOwner,
    ResetOwner,
    SetMemoryTable(Vec<(MemoryRegion, OwnedFd)>),
    GetMaxMemSlots,
    AddMemoryRegion(MemoryRegion, OwnedFd),
    RemoveMemoryRegion(MemoryRegion),
    SetVringNum { index: u32, size: u16 },
    SetVringAddress(VringAddress),
    SetVringBase { index: u32, base: u32 },
    GetVringBase { index: u32 },
    SetVringKick { index: u32, file: Option<OwnedFd> },
    SetVringCall { index: u32, file: Option<OwnedFd> },
    SetVringErr { index: u32, file: Option<OwnedFd> },
    SetVringEnable { index: u32, enable: bool },
    GetConfig { offset: u32, size: u32, flags: u32 },
    SetConfig { offset: u32, flags: u32, bytes: Vec<u8> },
    SetBackendReqFd(OwnedFd),
    SetStatus(u8),
    GetStatus,
    ResetDevice,
    GetSharedMemory,
}

impl Request {
    /// Gives the message its type. Files of a malformed message are closed.
    ///
    /// In [`Request::GetConfig`], `offset` is below 256 and `size` at most 256.
    pub fn parse(message: Message) -> Result<Self, Malformed> {
        let code =
            RequestCode::from_number(message.header.request).ok_or(Malformed::Unknown(message.header.request))?;
        let mut parts = Parts {
            code,
            payload: &message.payload,
            files: message.files,
        };
        let request = match code {
            RequestCode::GetFeatures => parts.nothing(Self::GetFeatures)?,
            RequestCode::SetFeatures => Self::SetFeatures(parts.object()?),
            RequestCode::GetProtocolFeatures => parts.nothing(Self::GetProtocolFeatures)?,
            RequestCode::SetProtocolFeatures => {
                let features = parts.object()?;
                let known = ProtocolFeatures::from_bits(features);
                Self::SetProtocolFeatures(known.ok_or_else(|| parts.value("protocol features", features))?)
            }
            RequestCode::GetQueueNum => parts.nothing(Self::GetQueueNum)?,
            RequestCode::SetOwner => parts.nothing(Self::SetOwner)?,
            RequestCode::ResetOwner => parts.nothing(Self::ResetOwner)?,
            RequestCode::SetMemoryTable => Self::SetMemoryTable(parts.memory_table()?),
            RequestCode::GetMaxMemSlots => parts.nothing(Self::GetMaxMemSlots)?,
            RequestCode::AddMemoryRegion => {
                let SingleRegion { region, .. } = parts.object()?;
                Self::AddMemoryRegion(region, parts.file()?)
            }
            RequestCode::RemoveMemoryRegion => {
                let SingleRegion { region, .. } = parts.object()?;
                // Some frontends send the region's file once more; the protocol says to close it unused.
                parts.files.truncate(parts.files.len().saturating_sub(1));
                Self::RemoveMemoryRegion(region)
            }
            RequestCode::SetVringNum => {
                let VringState { index, num } = parts.object()?;
                // VIRTIO 1.1 2.6 and 2.7: a ring has 1 to 32768 entries.
                match u16::try_from(num) {
                    Ok(size @ 1..=32768) => Self::SetVringNum { index, size },
                    _ => return Err(parts.value("num", num.into())),
                }
            }
            RequestCode::SetVringAddress => {
                let address: VringAddress = parts.object()?;
                // Bit 0 asks for a log of writes to the used ring; logging was never offered.
                if address.flags != 0 {
                    return Err(parts.value("flags", address.flags.into()));
                }
                Self::SetVringAddress(address)
            }
            RequestCode::SetVringBase => {
                let VringState { index, num } = parts.object()?;
                Self::SetVringBase { index, base: num }
            }
            RequestCode::GetVringBase => {
                let VringState { index, .. } = parts.object()?;
                Self::GetVringBase { index }
            }
            RequestCode::SetVringKick => {
                let (index, file) = parts.vring_file()?;
                Self::SetVringKick { index, file }
            }
            RequestCode::SetVringCall => {
                let (index, file) = parts.vring_file()?;
                Self::SetVringCall { index, file }
            }
            RequestCode::SetVringErr => {
                let (index, file) = parts.vring_file()?;
                Self::SetVringErr { index, file }
            }
            RequestCode::SetVringEnable => {
                let VringState { index, num } = parts.object()?;
                match num {
                    0 => Self::SetVringEnable { index, enable: false },
                    1 => Self::SetVringEnable { index, enable: true },
                    _ => return Err(parts.value("num", num.into())),
                }
            }
            RequestCode::GetConfig => {
                let (Config { offset, size, flags }, _) = parts.prefix()?;
                // The end may lie behind the configuration space: frontends read all fields that they know.
                if offset as usize >= MAX_CONFIG {
                    return Err(parts.value("offset", offset.into()));
                }
                if size as usize > MAX_CONFIG {
                    return Err(parts.value("size", size.into()));
                }
                Self::GetConfig { offset, size, flags }
            }
            RequestCode::SetConfig => {
                let (Config { offset, flags, .. }, bytes) = parts.written_config()?;
                Self::SetConfig {
                    offset,
                    flags,
                    bytes: bytes.to_vec(),
                }
            }
            RequestCode::SetBackendReqFd => {
                let () = parts.object()?;
                Self::SetBackendReqFd(parts.file()?)
            }
            RequestCode::SetStatus => {
                let status: u64 = parts.object()?;
                Self::SetStatus(u8::try_from(status).map_err(|_| parts.value("status", status))?)
            }
            RequestCode::GetStatus => parts.nothing(Self::GetStatus)?,
            RequestCode::ResetDevice => parts.nothing(Self::ResetDevice)?,
            RequestCode::GetSharedMemory => parts.nothing(Self::GetSharedMemory)?,
        };
        parts.no_files()?;
        Ok(request)
    }
}

/// What is left of a message while it is parsed.
struct Parts<'a> {
    code: RequestCode,
    payload: &'a [u8],
    files: Vec<OwnedFd>,
}

impl Parts<'_> {
    fn nothing(&self, request: Request) -> Result<Request, Malformed> {
        let () = self.object()?;
        Ok(request)
    }

    /// A payload of a fixed size.
    fn object<T: FromBytes>(&self) -> Result<T, Malformed> {
        let (object, rest) = self.prefix()?;
        self.padding(rest)?;
        Ok(object)
    }

    fn prefix<T: FromBytes>(&self) -> Result<(T, &[u8]), Malformed> {
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

    fn memory_table(&mut self) -> Result<Vec<(MemoryRegion, OwnedFd)>, Malformed> {
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
    fn written_config(&self) -> Result<(Config, &[u8]), Malformed> {
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

    fn file(&mut self) -> Result<OwnedFd, Malformed> {
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
    fn vring_file(&mut self) -> Result<(u32, Option<OwnedFd>), Malformed> {
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

    fn no_files(&self) -> Result<(), Malformed> {
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

    fn value(&self, field: &'static str, value: u64) -> Malformed {
        Malformed::Value {
            request: self.code,
            field,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::message::Header;

    fn message(code: u32, payload: &[u8], files: usize) -> Message {
        let file = || std::fs::File::open("/dev/null").unwrap().into();
        Message {
            header: Header {
                request: code,
                flags: 1,
                size: payload.len() as u32,
            },
            payload: payload.to_vec(),
            files: (0..files).map(|_| file()).collect(),
        }
    }

    fn number(code: RequestCode, number: u64, files: usize) -> Result<Request, Malformed> {
        Request::parse(message(code as u32, number.as_bytes(), files))
    }

    #[test]
    fn unknown_numbers_are_named() {
        assert_eq!(
            Request::parse(message(4711, &[], 0)).unwrap_err(),
            Malformed::Unknown(4711)
        );
    }

    #[test]
    fn a_ring_has_1_to_32768_entries() {
        for (num, good) in [(0, false), (1, true), (32768, true), (32769, false), (65537, false)] {
            let state = VringState { index: 0, num };
            let request = Request::parse(message(RequestCode::SetVringNum as u32, state.as_bytes(), 0));
            assert_eq!(request.is_ok(), good, "num {num}");
        }
    }

    #[test]
    fn bit_8_means_that_no_file_comes_along() {
        use RequestCode::SetVringCall;
        assert!(matches!(
            number(SetVringCall, 0x103, 0),
            Ok(Request::SetVringCall { index: 3, file: None })
        ));
        assert!(matches!(
            number(SetVringCall, 0x003, 1),
            Ok(Request::SetVringCall {
                index: 3,
                file: Some(_)
            })
        ));
        assert!(matches!(
            number(SetVringCall, 0x003, 0),
            Err(Malformed::Files {
                files: 0,
                expected: 1,
                ..
            })
        ));
        assert!(matches!(
            number(SetVringCall, 0x103, 1),
            Err(Malformed::Files {
                files: 1,
                expected: 0,
                ..
            })
        ));
        assert!(matches!(number(SetVringCall, 0x203, 1), Err(Malformed::Value { .. })));
    }

    #[test]
    fn a_memory_table_needs_one_file_a_region() {
        let region = MemoryRegion {
            guest_address: 0,
            size: 4096,
            user_address: 1 << 40,
            mmap_offset: 0,
        };
        let table = [2_u32.as_bytes(), 0_u32.as_bytes(), region.as_bytes(), region.as_bytes()].concat();
        let parse = |files| Request::parse(message(RequestCode::SetMemoryTable as u32, &table, files));
        assert!(matches!(parse(2), Ok(Request::SetMemoryTable(regions)) if regions.len() == 2));
        assert!(matches!(
            parse(1),
            Err(Malformed::Files {
                files: 1,
                expected: 2,
                ..
            })
        ));
        assert!(matches!(
            parse(3),
            Err(Malformed::Files {
                files: 3,
                expected: 2,
                ..
            })
        ));
    }

    #[test]
    fn removing_a_region_tolerates_its_file() {
        let region = [0_u64; 5];
        for (files, good) in [(0, true), (1, true), (2, false)] {
            let request = Request::parse(message(
                RequestCode::RemoveMemoryRegion as u32,
                region.as_bytes(),
                files,
            ));
            assert_eq!(request.is_ok(), good, "{files} files");
        }
    }

    #[test]
    fn zeros_behind_a_payload_are_padding_and_other_bytes_are_an_error() {
        let region = [0_u64, 4096, 1 << 40, 0];
        let state = VringState { index: 1, num: 128 };
        let config = [36_u32, 4, 0];
        let (one, none) = (1_u32, 0_u32);
        let payloads: [(RequestCode, Vec<u8>, usize); 6] = [
            // User-Mode Linux 6.1: one region in a table of two.
            (
                RequestCode::SetMemoryTable,
                [one.as_bytes(), none.as_bytes(), region.as_bytes()].concat(),
                1,
            ),
            (RequestCode::SetFeatures, (1_u64 << 32).as_bytes().to_vec(), 0),
            (RequestCode::SetVringNum, state.as_bytes().to_vec(), 0),
            (RequestCode::GetFeatures, Vec::new(), 0),
            (RequestCode::SetBackendReqFd, Vec::new(), 1),
            (RequestCode::SetConfig, [config.as_bytes(), &[7; 4]].concat(), 0),
        ];
        for (code, payload, files) in payloads {
            let parse = |tail: &[u8]| Request::parse(message(code as u32, &[&payload, tail].concat(), files));
            let expected = payload.len();
            for length in [0, 1, 32] {
                assert!(parse(&vec![0; length]).is_ok(), "{code} with {length} zeros");
            }
            let refused = parse(&[0, 0, 1]).unwrap_err();
            let size = expected + 3;
            let request = code;
            assert_eq!(
                refused,
                Malformed::Size {
                    request,
                    size,
                    expected
                }
            );
            if let Some(short) = expected.checked_sub(1) {
                let refused = Request::parse(message(code as u32, &payload[..short], files)).unwrap_err();
                assert!(matches!(refused, Malformed::Size { .. }), "{code}: {refused}");
            }
        }
    }

    #[test]
    fn configuration_space_is_read_at_every_offset_in_every_size() {
        let parse = |offset: u32, size: u32, sent: usize| {
            let bytes = [offset.as_bytes(), size.as_bytes(), 0_u32.as_bytes(), &vec![7; sent]].concat();
            Request::parse(message(RequestCode::GetConfig as u32, &bytes, 0))
        };
        for offset in 0..256 {
            for size in 0..=256 {
                assert!(parse(offset, size, size as usize).is_ok(), "{size} bytes at {offset}");
            }
        }
        for (offset, size) in [(256, 1), (0, 257), (u32::MAX, u32::MAX), (u32::MAX, 1)] {
            let refused = parse(offset, size, 0).unwrap_err();
            assert!(
                matches!(refused, Malformed::Value { .. }),
                "{size} bytes at {offset}: {refused}"
            );
        }
        // What follows the header is room for the reply.
        for sent in [0, 39, 41] {
            assert!(parse(0, 40, sent).is_ok(), "{sent} bytes of room");
        }
    }

    #[test]
    fn configuration_space_is_written_within_256_bytes() {
        let parse = |offset: u32, size: u32, sent: usize| {
            let bytes = [offset.as_bytes(), size.as_bytes(), 0_u32.as_bytes(), &vec![7; sent]].concat();
            Request::parse(message(RequestCode::SetConfig as u32, &bytes, 0))
        };
        assert!(parse(0, 256, 256).is_ok());
        assert!(matches!(parse(1, 256, 256), Err(Malformed::Value { .. })));
        assert!(matches!(parse(u32::MAX, u32::MAX, 0), Err(Malformed::Value { .. })));
        assert!(matches!(parse(0, 40, 39), Err(Malformed::Size { .. })));
        assert!(matches!(parse(0, 40, 41), Err(Malformed::Size { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_request_or_malformed(
            code in prop_oneof![0_u32..48, any::<u32>()],
            payload in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(Just(0_u8), 0..300),
                Just(vec![0; 8]),
                Just(vec![0; 40]),
            ],
            files in 0_usize..10,
        ) {
            match Request::parse(message(code, &payload, files)) {
                Err(Malformed::Unknown(number)) => prop_assert!(RequestCode::from_number(number).is_none()),
                _ => prop_assert!(RequestCode::from_number(code).is_some()),
            }
        }
    }
}
