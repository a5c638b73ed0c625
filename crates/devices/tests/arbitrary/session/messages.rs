//! Arbitrary bytes as messages of a front end.

use vhost_user::ProtocolFeatures;
use vhost_user::message::{FLAG_NEED_REPLY, MemoryRegion, RequestCode, VringState};
use virtqueue::features::VERSION_1;
use zerocopy::IntoBytes;

use super::files::{CALLS, CHOICES, KICKS, OTHER_RAM, RAM, RAM_SIZE};
use super::framed;
use crate::bytes::Bytes;

/// Where guest memory begins, for the guest and for its front end.
pub(super) const BASE: u64 = 0x1_0000;
const VERSION: u32 = 1;

/// A message as it goes over the socket.
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) files: Vec<u8>,
    /// It is not as long as it says.
    pub(super) torn: bool,
}

impl Sent {
    pub(super) fn new(request: u32, payload: &[u8]) -> Self {
        Self {
            bytes: framed(request, VERSION, payload.len(), payload),
            files: Vec::new(),
            torn: false,
        }
    }

    pub(super) fn of(code: RequestCode, payload: &[u8]) -> Self {
        Self::new(code as u32, payload)
    }

    pub(super) fn with(mut self, file: u8) -> Self {
        self.files.push(file);
        self
    }
}

/// What comes before everything else, with all protocol features that are offered: a file system's requests are not tracked.
pub(super) fn negotiation(features: u64) -> Vec<Sent> {
    let offered = ProtocolFeatures::all().difference(ProtocolFeatures::INFLIGHT_SHMFD);
    vec![
        Sent::of(RequestCode::GetProtocolFeatures, &[]),
        Sent::of(RequestCode::SetProtocolFeatures, &offered.bits().to_le_bytes()),
        Sent::of(RequestCode::SetOwner, &[]),
        Sent::of(RequestCode::SetFeatures, &features.to_le_bytes()),
        Sent::of(RequestCode::AddMemoryRegion, &single(region())).with(RAM),
    ]
}

fn region() -> MemoryRegion {
    MemoryRegion {
        guest_address: BASE,
        size: RAM_SIZE,
        user_address: BASE,
        mmap_offset: 0,
    }
}

fn single(region: MemoryRegion) -> Vec<u8> {
    [0_u64.as_bytes(), region.as_bytes()].concat()
}

/// Mostly all of memory, else a part of it or none.
fn any_region(bytes: &mut Bytes<'_>) -> (MemoryRegion, u8) {
    let choice = bytes.u8();
    let mut region = region();
    let mut file = RAM;
    match choice {
        0..=99 => {}
        100..=179 => {
            region.guest_address += u64::from(bytes.u8()) << 10;
            region.size = u64::from(bytes.u8()) << 9;
            region.user_address = region.guest_address;
            region.mmap_offset = u64::from(bytes.u8()) << 7;
        }
        180..=219 => {
            region.size /= 4;
            file = OTHER_RAM;
        }
        220..=239 => file = bytes.u8(),
        _ => {
            region = MemoryRegion {
                guest_address: bytes.u64(),
                size: bytes.u64(),
                user_address: bytes.u64(),
                mmap_offset: bytes.u64(),
            }
        }
    }
    (region, file)
}

fn queue(bytes: &mut Bytes<'_>) -> u32 {
    match bytes.u8() {
        choice @ 0..=247 => u32::from(choice & 1),
        248..=251 => u32::from(bytes.u8()),
        _ => bytes.u32(),
    }
}

/// GET_VRING_BASE.
pub(super) fn stop(bytes: &mut Bytes<'_>) -> Sent {
    let state = VringState {
        index: queue(bytes),
        num: 0,
    };
    Sent::of(RequestCode::GetVringBase, state.as_bytes())
}

/// A message that is as long as it says, and mostly one that can be granted.
pub(super) fn valid(bytes: &mut Bytes<'_>) -> Sent {
    let code = bytes.one(RequestCode::ALL);
    let mut sent = Sent::of(code, &[]);
    let mut files = Vec::new();
    let payload = match code {
        RequestCode::SetFeatures => {
            let features = match bytes.u8() {
                0..=199 => VERSION_1 | 1 << 30 | u64::from(bytes.u8() & 3) << 28 | u64::from(bytes.u8() & 3) << 34,
                _ => bytes.u64(),
            };
            features.to_le_bytes().to_vec()
        }
        RequestCode::SetProtocolFeatures => {
            let features = ProtocolFeatures::from_bits_truncate(bytes.u64());
            features.bits().to_le_bytes().to_vec()
        }
        RequestCode::SetMemoryTable => {
            let count = bytes.u8() % 4;
            let mut payload = [u32::from(count), 0].as_bytes().to_vec();
            for _ in 0..count {
                let (region, file) = any_region(bytes);
                payload.extend(region.as_bytes());
                files.push(file);
            }
            payload
        }
        RequestCode::AddMemoryRegion => {
            let (region, file) = any_region(bytes);
            files.push(file);
            single(region)
        }
        RequestCode::RemoveMemoryRegion => single(any_region(bytes).0),
        RequestCode::SetVringAddress => {
            let index = queue(bytes);
            let mut address = || match bytes.u8() {
                choice @ 0..=199 => BASE + (u64::from(choice) << 8),
                _ => bytes.u64(),
            };
            let addresses = [address(), address(), address(), 0];
            [[index, u32::from(bytes.u8() / 250)].as_bytes(), addresses.as_bytes()].concat()
        }
        RequestCode::SetVringNum | RequestCode::SetVringBase | RequestCode::GetVringBase => {
            let num = match bytes.u8() {
                choice @ 0..=239 => u32::from(choice & 15),
                _ => bytes.u32(),
            };
            [queue(bytes), num].as_bytes().to_vec()
        }
        RequestCode::SetVringEnable => [queue(bytes), u32::from(bytes.u8() & 1)].as_bytes().to_vec(),
        RequestCode::SetVringKick | RequestCode::SetVringCall | RequestCode::SetVringErr => {
            let index = queue(bytes) & 0xff;
            let right = if code == RequestCode::SetVringKick {
                KICKS
            } else {
                CALLS
            };
            let none = match bytes.u8() {
                0..=99 => {
                    files.push(right + (index & 1) as u8);
                    0
                }
                100..=219 => {
                    files.push(bytes.u8() % CHOICES);
                    0
                }
                _ => 0x100,
            };
            u64::from(index | none).to_le_bytes().to_vec()
        }
        RequestCode::GetConfig | RequestCode::SetConfig => {
            let (offset, size) = (u32::from(bytes.u8()), u32::from(bytes.u8()));
            [[offset, size, 0].as_bytes(), &vec![0; size as usize]].concat()
        }
        RequestCode::SetBackendReqFd => {
            files.push(bytes.u8());
            Vec::new()
        }
        RequestCode::SetStatus => u64::from(bytes.u8()).to_le_bytes().to_vec(),
        _ => Vec::new(),
    };
    let flags = if bytes.u8() & 1 == 0 {
        VERSION
    } else {
        VERSION | FLAG_NEED_REPLY
    };
    sent.bytes = framed(code as u32, flags, payload.len(), &payload);
    sent.files = files;
    sent
}

/// A message of any number, length and files, not always as long as it says.
pub(super) fn malformed(bytes: &mut Bytes<'_>) -> Sent {
    let request = match bytes.u8() {
        choice @ 0..=239 => u32::from(choice % 48),
        _ => bytes.u32(),
    };
    let flags = match bytes.u8() {
        0..=199 => VERSION,
        200..=229 => VERSION | FLAG_NEED_REPLY,
        _ => bytes.u32(),
    };
    let payload = bytes.some(120);
    let files = (0..bytes.u8() % 11).map(|_| bytes.u8()).collect();
    let size = match bytes.u8() {
        0..=231 => payload.len(),
        232..=247 => usize::from(bytes.u16()),
        _ => bytes.u32() as usize,
    };
    Sent {
        bytes: framed(request, flags, size, payload),
        files,
        torn: size != payload.len(),
    }
}
