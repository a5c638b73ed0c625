//! The VMM's end: one method per request.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::message::{
    Config, FLAG_NEED_REPLY, FLAG_REPLY, Inflight, MAX_CONFIG, MemoryRegion, MemoryTable, RequestCode,
    SharedMemoryConfig, SingleRegion, VRING_NO_FILE, VringAddress, VringState,
};
use crate::socket::{Message, Socket, Timeout};
use crate::{Error, ProtocolFeatures};

/// A connection to one backend. Once REPLY_ACK is negotiated, every request is confirmed before its method returns.
#[derive(Debug)]
pub struct Frontend {
    socket: Socket,
    negotiated: ProtocolFeatures,
    timeout: Timeout,
}

impl Frontend {
    /// Drives the backend at the other end of a connected socket. A reply must arrive within `timeout`; `None` waits for ever.
    pub fn new(stream: impl Into<OwnedFd>, timeout: Option<Duration>) -> Self {
        Self {
            socket: Socket::new(stream),
            negotiated: ProtocolFeatures::empty(),
            timeout: Timeout(timeout),
        }
    }

    /// GET_FEATURES: VIRTIO features of the device, and bit 30.
    pub fn features(&mut self) -> Result<u64, Error> {
        self.ask(RequestCode::GetFeatures, &())
    }

    /// SET_FEATURES, with bit 30 if rings are to start disabled.
    pub fn set_features(&mut self, features: u64) -> Result<(), Error> {
        self.tell(RequestCode::SetFeatures, &features, &[])
    }

    /// GET_PROTOCOL_FEATURES: what the backend offers, as far as it is known here.
    pub fn protocol_features(&mut self) -> Result<ProtocolFeatures, Error> {
        self.ask(RequestCode::GetProtocolFeatures, &())
            .map(ProtocolFeatures::from_bits_truncate)
    }

    /// SET_PROTOCOL_FEATURES: what will be used from now on.
    pub fn set_protocol_features(&mut self, features: ProtocolFeatures) -> Result<(), Error> {
        self.tell(RequestCode::SetProtocolFeatures, &features.bits(), &[])?;
        self.negotiated = features;
        Ok(())
    }

    /// GET_QUEUE_NUM: how many queues the device has.
    pub fn queue_num(&mut self) -> Result<u64, Error> {
        self.ask(RequestCode::GetQueueNum, &())
    }

    /// SET_OWNER.
    pub fn set_owner(&mut self) -> Result<(), Error> {
        self.tell(RequestCode::SetOwner, &(), &[])
    }

    /// RESET_OWNER.
    pub fn reset_owner(&mut self) -> Result<(), Error> {
        self.tell(RequestCode::ResetOwner, &(), &[])
    }

    /// SET_MEM_TABLE: the whole guest memory, eight regions at most.
    pub fn set_memory_table(&mut self, regions: &[(MemoryRegion, BorrowedFd<'_>)]) -> Result<(), Error> {
        let table = MemoryTable {
            count: regions.len() as u32,
            padding: 0,
        };
        let (regions, files): (Vec<_>, Vec<_>) = regions.iter().copied().unzip();
        self.tell_parts(
            RequestCode::SetMemoryTable,
            &[table.as_bytes(), regions.as_bytes()],
            &files,
        )
    }

    /// GET_MAX_MEM_SLOTS: how many regions the backend takes.
    pub fn max_memory_slots(&mut self) -> Result<u64, Error> {
        self.ask(RequestCode::GetMaxMemSlots, &())
    }

    /// ADD_MEM_REG.
    pub fn add_memory_region(&mut self, region: MemoryRegion, file: BorrowedFd<'_>) -> Result<(), Error> {
        self.tell(
            RequestCode::AddMemoryRegion,
            &SingleRegion { padding: 0, region },
            &[file],
        )
    }

    /// REM_MEM_REG.
    pub fn remove_memory_region(&mut self, region: MemoryRegion) -> Result<(), Error> {
        self.tell(
            RequestCode::RemoveMemoryRegion,
            &SingleRegion { padding: 0, region },
            &[],
        )
    }

    /// SET_VRING_NUM: the ring's size.
    pub fn set_vring_num(&mut self, index: u32, size: u32) -> Result<(), Error> {
        self.tell(RequestCode::SetVringNum, &VringState { index, num: size }, &[])
    }

    /// SET_VRING_ADDR: the ring's addresses.
    pub fn set_vring_address(&mut self, address: VringAddress) -> Result<(), Error> {
        self.tell(RequestCode::SetVringAddress, &address, &[])
    }

    /// SET_VRING_BASE: where the ring goes on.
    pub fn set_vring_base(&mut self, index: u32, base: u32) -> Result<(), Error> {
        self.tell(RequestCode::SetVringBase, &VringState { index, num: base }, &[])
    }

    /// GET_VRING_BASE: stops the ring and tells where it would go on.
    pub fn vring_base(&mut self, index: u32) -> Result<u32, Error> {
        let answer: VringState = self.ask(RequestCode::GetVringBase, &VringState { index, num: 0 })?;
        if answer.index != index {
            return Err(wrong_reply(
                RequestCode::GetVringBase,
                format!("ring {} instead of {index}", answer.index),
            ));
        }
        Ok(answer.num)
    }

    /// SET_VRING_KICK: the file that wakes the backend; starts the ring.
    pub fn set_vring_kick(&mut self, index: u8, file: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.tell_vring_file(RequestCode::SetVringKick, index, file)
    }

    /// SET_VRING_CALL: the file that interrupts the driver.
    pub fn set_vring_call(&mut self, index: u8, file: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.tell_vring_file(RequestCode::SetVringCall, index, file)
    }

    /// SET_VRING_ERR: the file that tells of a broken ring.
    pub fn set_vring_err(&mut self, index: u8, file: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.tell_vring_file(RequestCode::SetVringErr, index, file)
    }

    /// SET_VRING_ENABLE.
    pub fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<(), Error> {
        self.tell(
            RequestCode::SetVringEnable,
            &VringState {
                index,
                num: enable.into(),
            },
            &[],
        )
    }

    /// GET_CONFIG: `size` bytes of configuration space at `offset`.
    pub fn config(&mut self, offset: u32, size: u32) -> Result<Vec<u8>, Error> {
        let code = RequestCode::GetConfig;
        let room = [0; MAX_CONFIG];
        let Some(room) = room.get(..size as usize) else {
            return Err(wrong_reply(code, format!("{size} bytes can not be asked for")));
        };
        self.send(code, 0, &[Config { offset, size, flags: 0 }.as_bytes(), room], &[])?;
        let reply = self.receive(code)?;
        match Config::read_from_prefix(&reply.payload) {
            Ok((header, bytes)) if header.size == size && bytes.len() == size as usize => Ok(bytes.to_vec()),
            _ => Err(wrong_reply(
                code,
                format!("{} bytes of payload: an error", reply.payload.len()),
            )),
        }
    }

    /// SET_CONFIG: writes to configuration space at `offset`.
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let header = Config {
            offset,
            size: bytes.len() as u32,
            flags: 0,
        };
        self.tell_parts(RequestCode::SetConfig, &[header.as_bytes(), bytes], &[])
    }

    /// SET_BACKEND_REQ_FD: the backend's end of the socket on which it sends requests.
    pub fn set_backend_channel(&mut self, file: BorrowedFd<'_>) -> Result<(), Error> {
        self.tell(RequestCode::SetBackendReqFd, &(), &[file])
    }

    /// GET_INFLIGHT_FD: a new record of requests in flight for so many queues of this size. `None` if the backend has none.
    pub fn inflight(&mut self, queues: u16, queue_size: u16) -> Result<Option<(Inflight, OwnedFd)>, Error> {
        let code = RequestCode::GetInflight;
        let asked = Inflight {
            num_queues: queues,
            queue_size,
            ..Inflight::default()
        };
        self.send(code, 0, &[asked.as_bytes()], &[])?;
        let mut reply = self.receive(code)?;
        let size = reply.payload.len();
        let inflight = Inflight::read_from_bytes(&reply.payload).map_err(|_| {
            wrong_reply(
                code,
                format!("{size} bytes of payload, {} expected", size_of::<Inflight>()),
            )
        })?;
        match (inflight.mmap_size, reply.files.pop()) {
            (0, _) => Ok(None),
            (_, Some(file)) => Ok(Some((inflight, file))),
            (_, None) => Err(wrong_reply(code, "no file".into())),
        }
    }

    /// SET_INFLIGHT_FD: the record of requests in flight, of this connection or an earlier one.
    pub fn set_inflight(&mut self, inflight: Inflight, file: BorrowedFd<'_>) -> Result<(), Error> {
        self.tell(RequestCode::SetInflight, &inflight, &[file])
    }

    /// SET_STATUS: the device status.
    pub fn set_status(&mut self, status: u8) -> Result<(), Error> {
        self.tell(RequestCode::SetStatus, &u64::from(status), &[])
    }

    /// GET_STATUS.
    pub fn status(&mut self) -> Result<u64, Error> {
        self.ask(RequestCode::GetStatus, &())
    }

    /// RESET_DEVICE: stops all rings, forgets all device state.
    pub fn reset_device(&mut self) -> Result<(), Error> {
        self.tell(RequestCode::ResetDevice, &(), &[])
    }

    /// GET_SHMEM_CONFIG: bytes of each shared memory region, indexed by its id; 0: there is none.
    pub fn shared_memory(&mut self) -> Result<Vec<u64>, Error> {
        let config: SharedMemoryConfig = self.ask(RequestCode::GetSharedMemory, &())?;
        Ok(config.sizes.to_vec())
    }

    fn tell_vring_file(&mut self, code: RequestCode, index: u8, file: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        match file {
            Some(file) => self.tell(code, &u64::from(index), &[file]),
            None => self.tell(code, &(u64::from(index) | VRING_NO_FILE), &[]),
        }
    }

    fn tell<T: IntoBytes + Immutable>(
        &mut self,
        code: RequestCode,
        payload: &T,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        self.tell_parts(code, &[payload.as_bytes()], files)
    }

    /// Sends a request that has no reply of its own, and waits for the acknowledgement if that is negotiated.
    fn tell_parts(&mut self, code: RequestCode, payload: &[&[u8]], files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        if !self.negotiated.contains(ProtocolFeatures::REPLY_ACK) {
            return self.send(code, 0, payload, files);
        }
        self.send(code, FLAG_NEED_REPLY, payload, files)?;
        match self.receive_object(code)? {
            0_u64 => Ok(()),
            status => Err(Error::Refused { request: code, status }),
        }
    }

    /// Sends a request and returns its reply.
    fn ask<A: FromBytes>(&mut self, code: RequestCode, payload: &(impl IntoBytes + Immutable)) -> Result<A, Error> {
        self.send(code, 0, &[payload.as_bytes()], &[])?;
        self.receive_object(code)
    }

    fn send(&self, code: RequestCode, flags: u32, payload: &[&[u8]], files: &[BorrowedFd<'_>]) -> Result<(), Error> {
        if !self.negotiated.contains(code.needs()) {
            return Err(Error::NotNegotiated {
                request: code,
                feature: code.needs(),
            });
        }
        self.socket.send(code as u32, flags, payload, files)
    }

    fn receive_object<T: FromBytes>(&mut self, code: RequestCode) -> Result<T, Error> {
        let reply = self.receive(code)?;
        let size = reply.payload.len();
        T::read_from_bytes(&reply.payload)
            .map_err(|_| wrong_reply(code, format!("{size} bytes of payload, {} expected", size_of::<T>())))
    }

    fn receive(&mut self, code: RequestCode) -> Result<Message, Error> {
        let Some(reply) = self.socket.receive(self.timeout)? else {
            return Err(wrong_reply(code, "the backend closed the connection instead".into()));
        };
        if reply.header.request != code as u32 || reply.header.flags & FLAG_REPLY == 0 {
            let what = format!("request {} with flags {:#x}", reply.header.request, reply.header.flags);
            return Err(wrong_reply(code, what));
        }
        Ok(reply)
    }
}

impl AsFd for Frontend {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn wrong_reply(request: RequestCode, what: String) -> Error {
    Error::Reply { request, what }
}
