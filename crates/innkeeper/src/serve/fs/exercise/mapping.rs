//! The window into the page cache.

use std::fs::File;

use driver::fs::ROOT;
use driver::{Error, Options};
use fuse::wire::{self, InitFlags, Opcode};
use zerocopy::IntoBytes;

use super::laid_out;
use super::session::{Open, Session, zeros};
use crate::serve::exercise::Steps;

/// What Linux maps at once.
const RANGE: u64 = 2 << 20;
/// Where the window lies in the guest, far from its RAM.
const WINDOW: u64 = 1 << 40;

/// Maps a file, loads from the mapping and stores to it, and takes the mapping away in each of the ways there are.
pub(super) fn window(steps: &mut Steps) -> Result<(), Error> {
    let mut session = Session::start(steps, &Options::default(), InitFlags::empty())?;
    let file = session.create(Opcode::Create, ROOT, "mapped", libc::O_RDWR)?;
    let input = wire::WriteIn {
        fh: file.handle,
        size: 4096,
        ..zeros()
    };
    session.ask("", Opcode::Write, file.node, &[input.as_bytes(), &[1; 4096]], 8)?;
    for (place, writable) in [(0, true), (1, false), (2, true), (1, true)] {
        set_up(&mut session, file, place, writable)?;
    }
    if let Some(window) = session.guest.window() {
        match window.memory().store(0, b"stored") {
            Ok(()) => session.steps.succeeded("store to the window"),
            Err(_) => session.steps.refused("store to the window", libc::EFAULT),
        }
    }
    announce(&mut session, "mapped")?;
    let one = wire::RemovemappingOne {
        moffset: RANGE,
        len: RANGE,
    };
    let count = wire::RemovemappingIn { count: 1 };
    session.ask(
        "",
        Opcode::Removemapping,
        file.node,
        &[count.as_bytes(), one.as_bytes()],
        0,
    )?;
    session.release(Opcode::Release, file)?;
    session.ask("", Opcode::Unlink, ROOT, &[b"mapped\0"], 0)?;
    let input = wire::ForgetIn { nlookup: 1 };
    session.tell(Opcode::Forget, file.node, &[input.as_bytes()])?;
    session.ask("", Opcode::Destroy, 0, &[], 0).map(drop)
}

/// What QEMU does with a mapping: it is memory of the guest from now on, and a guest may have its requests there.
fn announce(session: &mut Session<'_>, name: &str) -> Result<(), Error> {
    let path = session.steps.directory.join(name);
    let opened = File::options().read(true).write(true).open(path);
    let Ok(file) = opened.and_then(|file| file.set_len(RANGE).map(|()| file)) else {
        return Ok(());
    };
    session.guest.map_file(WINDOW, RANGE, file)?;
    session.steps.succeeded("announce the window");
    laid_out::in_window(session, WINDOW)?;
    session.guest.unmap_file(WINDOW, RANGE)
}

fn set_up(session: &mut Session<'_>, file: Open, place: u64, writable: bool) -> Result<(), Error> {
    let input = wire::SetupmappingIn {
        fh: u64::MAX,
        len: RANGE,
        flags: wire::SETUPMAPPING_READ | if writable { wire::SETUPMAPPING_WRITE } else { 0 },
        moffset: place * RANGE,
        ..zeros()
    };
    session
        .ask("", Opcode::Setupmapping, file.node, &[input.as_bytes()], 0)
        .map(drop)
}
