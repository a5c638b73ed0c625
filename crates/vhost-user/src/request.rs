//! A frontend's request, parsed once on arrival and not checked again.
//!
//! Zeros behind a payload are accepted as padding. The bytes behind the header of GET_CONFIG are ignored: they only
//! reserve space for the reply. Any other deviation from the protocol is an error.

mod parts;

use std::os::fd::OwnedFd;

use self::parts::Parts;
use crate::message::{Config, Inflight, MAX_CONFIG, MemoryRegion, RequestCode, SingleRegion, VringAddress, VringState};
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
    GetInflight { queues: u16, queue_size: u16 },
    SetInflight(Inflight, OwnedFd),
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
            RequestCode::GetInflight => {
                let Inflight {
                    num_queues, queue_size, ..
                } = parts.inflight()?;
                Self::GetInflight {
                    queues: num_queues,
                    queue_size,
                }
            }
            RequestCode::SetInflight => {
                let inflight = parts.inflight()?;
                let size = inflight.queue_size;
                if !(1..=32768).contains(&size) {
                    return Err(parts.value("queue size", size.into()));
                }
                Self::SetInflight(inflight, parts.file()?)
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

#[cfg(test)]
mod tests;
