//! What `innkeeper check share` does: every operation of FUSE that the server has, in each way in which a share can know its files.

mod data;
mod laid_out;
mod mapping;
mod names;
mod needs;
mod session;

use driver::fs::ROOT;
use driver::{Error, Options};
use fuse::wire::{self, InitFlags, Opcode};
use zerocopy::IntoBytes;

use crate::serve::exercise::{Exercise, Pass, Steps};
use session::{Session, zeros};

/// Bytes of the window, as `--dax` takes it.
const WINDOW: &str = "64M";
/// A user of the guest that is not its root.
const CALLER: u32 = 1000;
/// Numbers of passes in the report.
pub(super) const BY_HANDLES: &str = "files by handle";
pub(super) const WITH_WINDOW: &str = "DAX window";

/// See the module.
pub(super) fn exercise() -> Exercise {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Exercise {
        passes: vec![
            Pass {
                name: "files by descriptor",
                options: words(&["--inode-file-handles", "never", "--num-queues", "2", "--log-errors"]),
                may_be_refused: false,
                guest: |steps| all_operations(steps, false),
            },
            Pass {
                name: BY_HANDLES,
                options: words(&[
                    "--inode-file-handles",
                    "mandatory",
                    "--cache",
                    "always",
                    "--writeback",
                    "--posix-acl",
                    "--allow-direct-io",
                    "--allow-project-ids",
                    "--allow-trusted-xattr",
                    "--allow-security-labels",
                    "--allow-chattr",
                ]),
                may_be_refused: true,
                guest: |steps| all_operations(steps, true),
            },
            Pass {
                name: WITH_WINDOW,
                options: words(&[
                    "--dax",
                    WINDOW,
                    "--dax-files",
                    "always",
                    "--cache",
                    "never",
                    "--allow-mmap",
                ]),
                may_be_refused: false,
                guest: mapping::window,
            },
            Pass {
                name: "idmapped mounts",
                options: words(&["--allow-idmap", "--ring", "split"]),
                may_be_refused: false,
                guest: idmapped,
            },
            Pass {
                name: "read-only",
                options: words(&["--readonly", "--no-xattr", "--no-announce-submounts"]),
                may_be_refused: false,
                guest: read_only,
            },
        ],
        needs: needs::of,
    }
}

/// As Linux does it: rings and features of a session that comes, goes and comes again. `trusted`: the share serves `trusted.*` attributes.
fn all_operations(steps: &mut Steps, trusted: bool) -> Result<(), Error> {
    let packed = Options {
        queues: 3,
        fewer_queues: true,
        packed: true,
        ..Options::default()
    };
    let mut session = Session::start(steps, &packed, InitFlags::empty())?;
    session.trusted = trusted;
    callers(&mut session)?;
    pause(&mut session)?;
    drop(session);
    // A guest that is older than most features, under a front end that is older, too.
    let split = Options {
        features: 0,
        indirect: false,
        protocol_features: vhost_user::ProtocolFeatures::MQ,
        shrinkable: true,
        ..Options::default()
    };
    let without = InitFlags::all() - InitFlags::BIG_WRITES - InitFlags::MAX_PAGES;
    let mut session = Session::start(steps, &split, without)?;
    session.trusted = trusted;
    callers(&mut session)?;
    session.ask("", Opcode::Destroy, 0, &[], 0)?;
    session.init(InitFlags::all())?;
    lose_memory(&mut session)
}

/// All operations as the guest's root, and as another user.
fn callers(session: &mut Session<'_>) -> Result<(), Error> {
    let top = session.steps.directory.clone();
    for (uid, name) in [(0, "of-root"), (CALLER, "of-user")] {
        (session.requests.uid, session.requests.gid) = (0, 0);
        let input = wire::MkdirIn {
            mode: libc::S_IFDIR | 0o777,
            umask: 0,
        };
        let directory = session.node("", Opcode::Mkdir, ROOT, &[input.as_bytes(), name.as_bytes(), b"\0"])?;
        (session.requests.uid, session.requests.gid) = (uid, uid);
        names::names(session, directory)?;
        data::data(session, directory, &top.join(name))?;
        interrupt(session)?;
        (session.requests.uid, session.requests.gid) = (0, 0);
        session.ask("", Opcode::Rmdir, ROOT, &[name.as_bytes(), b"\0"], 0)?;
    }
    Ok(())
}

fn interrupt(session: &mut Session<'_>) -> Result<(), Error> {
    session.tell(Opcode::Interrupt, 0, &[&2_u64.to_le_bytes()])
}

/// What a front end does while a guest runs: it stops and starts queues, and takes memory away and gives it back.
fn pause(session: &mut Session<'_>) -> Result<(), Error> {
    let base = session.guest.stop(1)?;
    session.guest.take_memory_away()?;
    session.guest.give_memory_back()?;
    session.guest.start(1, base)?;
    session.steps.succeeded("pause");
    let missing: &[&[u8]] = &[b"missing\0"];
    session.ask_in_vain("missing", Opcode::Lookup, ROOT, missing, libc::ENOENT)
}

/// The front end cuts the file of the guest's memory short: a request of the guest then cannot be read.
fn lose_memory(session: &mut Session<'_>) -> Result<(), Error> {
    if rustix::fs::ftruncate(session.guest.ram(), 0).is_ok() {
        session.guest.queues[1].kick()?;
        session.steps.succeeded("lose memory");
    }
    Ok(())
}

/// What creates names the caller of a request, and all else nobody.
fn idmapped(steps: &mut Steps) -> Result<(), Error> {
    let mut session = Session::start(steps, &Options::default(), InitFlags::empty())?;
    (session.requests.uid, session.requests.gid) = (CALLER, CALLER);
    let input = wire::MkdirIn {
        mode: libc::S_IFDIR | 0o777,
        umask: 0,
    };
    session.node("", Opcode::Mkdir, ROOT, &[input.as_bytes(), b"mapped\0"])?;
    if session.has(InitFlags::ALLOW_IDMAP) {
        (session.requests.uid, session.requests.gid) = (u32::MAX, u32::MAX);
    }
    session.lookup(ROOT, "mapped")?;
    session.ask("", Opcode::Rmdir, ROOT, &[b"mapped\0"], 0).map(drop)
}

fn read_only(steps: &mut Steps) -> Result<(), Error> {
    let mut session = Session::start(steps, &Options::default(), InitFlags::empty())?;
    let input = wire::CreateIn::default();
    let create: [&[u8]; 2] = [input.as_bytes(), b"file\0"];
    session.ask_in_vain("read-only", Opcode::Create, ROOT, &create, libc::EROFS)?;
    let opened = session.open("", Opcode::Opendir, ROOT, libc::O_RDONLY)?;
    let input = wire::ReadIn {
        fh: opened.handle,
        size: 4096,
        ..zeros()
    };
    session.ask("", Opcode::Readdirplus, ROOT, &[input.as_bytes()], 4096)?;
    session.release(Opcode::Releasedir, opened)
}
