//! Requests that lie where the guest wants them: data in whole pages for O_DIRECT, all of a request in the window.

use driver::Error;
use driver::fs::{IN_HEADER, OUT_HEADER};
use fuse::wire::{self, Opcode};
use virtqueue::Buffer;
use zerocopy::IntoBytes;

use super::session::{Open, Session, zeros};

const PAGE: u64 = 4096;
/// Where a request lies in its place; its reply and its data have the pages behind.
const REPLY: u64 = PAGE;
const DATA: u64 = 2 * PAGE;

/// Writes and reads `size` bytes of a file that is open with O_DIRECT, from and to whole pages.
pub(super) fn direct(session: &mut Session<'_>, file: Open, size: u32) -> Result<(), Error> {
    let Some(place) = session.guest.queues[1].take_place() else {
        return Ok(());
    };
    let data = buffer(place + DATA, size);
    let input = wire::WriteIn {
        fh: file.handle,
        size,
        ..zeros()
    };
    let zeroed = vec![0; size as usize];
    // `fuse_read_in` is the same in shape.
    for (opcode, reply) in [
        (Opcode::Write, OUT_HEADER + size_of::<wire::WriteOut>()),
        (Opcode::Read, OUT_HEADER),
    ] {
        // Its header counts the data as well.
        let out: &[u8] = if opcode == Opcode::Write { &zeroed } else { &[] };
        let request = session
            .requests
            .raw(opcode as u32, file.node, &[input.as_bytes(), out], 0)
            .readable;
        let length = IN_HEADER + input.as_bytes().len();
        session.guest.memory().write(place, &request[..length])?;
        let head = buffer(place, length as u32);
        let tail = buffer(place + REPLY, reply as u32);
        match opcode {
            Opcode::Write => post(session, &[head, data], &[tail])?,
            _ => post(session, &[head], &[tail, data])?,
        }
        let mut header = [0; OUT_HEADER];
        session.guest.memory().read(place + REPLY, &mut header)?;
        answered(
            session,
            &format!("{} (O_DIRECT, in whole pages)", opcode.name()),
            &header,
        );
    }
    session.guest.queues[1].return_place(place);
    Ok(())
}

/// STATFS of the root, with all of its buffers in the window at `address`.
pub(super) fn in_window(session: &mut Session<'_>, address: u64) -> Result<(), Error> {
    let room = OUT_HEADER + size_of::<wire::Statfs>();
    let request = session
        .requests
        .raw(Opcode::Statfs as u32, driver::fs::ROOT, &[], 0)
        .readable;
    session.guest.memory().write(address, &request)?;
    let head = buffer(address, request.len() as u32);
    post(session, &[head], &[buffer(address + REPLY, room as u32)])?;
    let mut header = [0; OUT_HEADER];
    session.guest.memory().read(address + REPLY, &mut header)?;
    answered(session, "STATFS (in the window)", &header);
    Ok(())
}

fn buffer(address: u64, length: u32) -> Buffer {
    Buffer { address, length }
}

fn post(session: &mut Session<'_>, readable: &[Buffer], writable: &[Buffer]) -> Result<(), Error> {
    let queue = &mut session.guest.queues[1];
    queue.ring().post(readable, writable)?;
    queue.kick()?;
    queue.wait().map(drop)
}

fn answered(session: &mut Session<'_>, operation: &str, header: &[u8; OUT_HEADER]) {
    match driver::fs::field_u32(header, 4).cast_signed() {
        0 => session.steps.succeeded(operation),
        error => session.steps.refused(operation, -error),
    }
}
