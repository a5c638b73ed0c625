//! Requests that only a hostile guest sends.

use fuse::deferred::{Answer, OnBlock};
use fuse::fs::Errno;
use fuse::server::Server;
use fuse::wire::{self, InitFlags, Opcode};
use guestmem::{Memory, Pieces, Reader, Writer};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use crate::guest::{Chain, failure, init, join, numbered, request, send, with_header, z};
use crate::operations::{cases, started};
use crate::recorder::Recorder;

#[test]
fn a_name_must_be_one_component() {
    let fs = Recorder::default();
    let server = started(&fs);
    let long_link = wire::LinkIn { oldnodeid: 6 };
    for name in [&b""[..], b".", b"..", b"/", b"a/b", b"../x", b"/etc", b"x/", b"./"] {
        let name = join(&[name, b"\0"]);
        let requests = [
            (Opcode::Lookup, name.clone()),
            (Opcode::Unlink, name.clone()),
            (Opcode::Rmdir, name.clone()),
            (Opcode::Symlink, join(&[&name, z(c"target")])),
            (Opcode::Mknod, join(&[wire::MknodIn::default().as_bytes(), &name])),
            (Opcode::Mkdir, join(&[wire::MkdirIn::default().as_bytes(), &name])),
            (Opcode::Create, join(&[wire::CreateIn::default().as_bytes(), &name])),
            (Opcode::Link, join(&[long_link.as_bytes(), &name])),
            (
                Opcode::Rename,
                join(&[wire::RenameIn::default().as_bytes(), &name, z(c"new")]),
            ),
            (
                Opcode::Rename,
                join(&[wire::RenameIn::default().as_bytes(), z(c"old"), &name]),
            ),
            (
                Opcode::Rename2,
                join(&[wire::Rename2In::default().as_bytes(), &name, z(c"new")]),
            ),
            (
                Opcode::Rename2,
                join(&[wire::Rename2In::default().as_bytes(), z(c"old"), &name]),
            ),
        ];
        for (opcode, arguments) in requests {
            let reply = send(&server, &request(opcode, 7, &arguments));
            assert_eq!(reply, failure(libc::EINVAL), "{opcode:?} {}", name.escape_ascii());
        }
    }
    assert_eq!(
        send(&server, &request(Opcode::Lookup, 7, b"no end")),
        failure(libc::EINVAL)
    );
    assert!(fs.take().is_empty());
}

#[test]
fn lengths_must_agree() {
    let fs = Recorder::default();
    let server = started(&fs);
    for case in cases() {
        let longer = join(&[&case.request, &[0]]);
        let shorter = &case.request[..case.request.len() - 1];
        for (what, bytes) in [("longer than it says", &longer[..]), ("shorter than it says", shorter)] {
            // Of a header that is cut short, nothing is known.
            let expected = if bytes.len() < 40 {
                Vec::new()
            } else {
                failure(libc::EINVAL)
            };
            assert_eq!(send(&server, bytes), expected, "{:?} {what}", case.opcode);
        }
        let trailing = with_header(longer, |header| header.len += 1);
        assert_eq!(
            send(&server, &trailing),
            failure(libc::EINVAL),
            "{:?} with a byte too many",
            case.opcode
        );
        for lie in [1, u32::MAX] {
            let lying = with_header(case.request.clone(), |header| header.len = header.len.wrapping_add(lie));
            assert_eq!(
                send(&server, &lying),
                failure(libc::EINVAL),
                "{:?} with a length that lies",
                case.opcode
            );
        }
        for length in 40..case.request.len() {
            let cut = with_header(case.request[..length].to_vec(), |header| header.len = length as u32);
            assert_eq!(
                send(&server, &cut),
                failure(libc::EINVAL),
                "{:?} of {length} bytes",
                case.opcode
            );
        }
        assert!(fs.take().is_empty(), "{:?}", case.opcode);
    }
    for length in 0..40 {
        assert!(send(&server, &[0; 40][..length]).is_empty());
    }
}

#[test]
fn sizes_are_bounded() {
    let fs = Recorder::default();
    let server = started(&fs);
    let setxattr = wire::SetxattrIn {
        size: 65_537,
        ..Default::default()
    };
    let arguments = join(&[setxattr.as_bytes(), z(c"user.a"), &[0; 65_537]]);
    assert_eq!(
        send(&server, &request(Opcode::Setxattr, 7, &arguments)),
        failure(libc::E2BIG)
    );
    assert_eq!(
        send(&server, &request(Opcode::Symlink, 7, &[b'a'; 200_000])),
        failure(libc::E2BIG)
    );
    let ioctl = wire::IoctlIn {
        out_size: 1 << 14,
        ..Default::default()
    };
    let chain = Chain::new(&request(Opcode::Ioctl, 7, ioctl.as_bytes()), 1 << 16, &[usize::MAX]);
    assert_eq!(chain.send(&server), failure(libc::EINVAL));
    let unrestricted = wire::IoctlIn {
        flags: wire::IOCTL_UNRESTRICTED,
        ..Default::default()
    };
    assert_eq!(
        send(&server, &request(Opcode::Ioctl, 7, unrestricted.as_bytes())),
        failure(libc::ENOTTY)
    );
    assert!(fs.take().is_empty());
}

#[test]
fn a_caller_without_an_id_gets_nothing_done() {
    let fs = Recorder::default();
    let server = Server::new(&fs);
    send(&server, &init(45, InitFlags::all().difference(InitFlags::ALLOW_IDMAP)));
    fs.take();
    for case in cases() {
        let no_user = with_header(case.request.clone(), |header| header.uid = u32::MAX);
        let no_group = with_header(case.request, |header| header.gid = u32::MAX);
        assert_eq!(send(&server, &no_user), failure(libc::EINVAL));
        assert_eq!(send(&server, &no_group), failure(libc::EINVAL));
    }
    assert!(fs.take().is_empty());
}

/// FUSE 7.41: with FUSE_ALLOW_IDMAP only requests that create name their caller.
#[test]
fn a_caller_without_an_id_is_served_where_idmapped_mounts_are_allowed() {
    let fs = Recorder::default();
    let server = started(&fs);
    for case in cases() {
        let named = send(&server, &case.request);
        let unnamed = with_header(case.request, |header| (header.uid, header.gid) = (u32::MAX, u32::MAX));
        assert_eq!(send(&server, &unnamed), named, "{:?}", case.opcode);
    }
}

#[test]
fn a_time_has_less_than_a_second_of_nanoseconds() {
    let fs = Recorder::default();
    let server = started(&fs);
    let late = wire::SetattrIn {
        valid: wire::FATTR_ATIME,
        atimensec: 1_000_000_000,
        ..Default::default()
    };
    assert_eq!(
        send(&server, &request(Opcode::Setattr, 7, late.as_bytes())),
        failure(libc::EINVAL)
    );
    assert!(fs.take().is_empty());
}

/// Whatever was sent: a reply is whole, bears the number of its request, and says its own length.
fn well_formed(request: &[u8], reply: &[u8]) -> Result<(), TestCaseError> {
    if reply.is_empty() {
        return Ok(());
    }
    let (asked, _) = wire::InHeader::read_from_prefix(request).unwrap();
    let (header, _) = wire::OutHeader::read_from_prefix(reply).unwrap();
    prop_assert_eq!(header.unique, asked.unique);
    if asked.opcode != wire::INIT_OTHER_ENDIAN {
        prop_assert_eq!(header.len as usize, reply.len());
        prop_assert!((-4095..=0).contains(&header.error));
        prop_assert!(header.error == 0 || reply.len() == 16);
    }
    Ok(())
}

fn opcode() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0_u32..56, 1 => Just(wire::INIT_OTHER_ENDIAN), 1 => any::<u32>()]
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..80, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_get_a_well_formed_reply_or_none(
        opcode in opcode(),
        arguments in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..200),
        extensions in prop_oneof![Just(0), any::<u16>(), 0_u16..30],
        lie in prop_oneof![9 => Just(0), 1 => any::<u32>()],
        room in prop_oneof![Just(0), 0_usize..40, Just(4096)],
        cuts in cuts(),
        in_session: bool,
    ) {
        let fs = Recorder::default();
        let server = if in_session { started(&fs) } else { Server::new(&fs) };
        let request = with_header(numbered(opcode, 1, &arguments), |header| {
            header.len = header.len.wrapping_add(lie);
            header.total_extlen = extensions;
        });
        let chain = Chain::new(&request, room, &cuts);
        well_formed(&request, &chain.send(&server))?;
        well_formed(&request, &chain.send_high_priority(&server))?;
    }

    #[test]
    fn a_damaged_request_gets_a_well_formed_reply_or_none(
        pick in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in prop::option::of(any::<prop::sample::Index>()),
        errno in prop::option::of(Just(Errno::EIO)),
        cuts in cuts(),
    ) {
        let fs = Recorder::default();
        let server = started(&fs);
        if let Some(errno) = errno {
            fs.fail(errno);
        }
        let cases = cases();
        let mut request = pick.get(&cases).request.clone();
        for (at, byte) in damage {
            let at = at.index(request.len());
            request[at] = byte;
        }
        if let Some(length) = length {
            request.truncate(length.index(request.len() + 1));
        }
        well_formed(&request, &Chain::new(&request, 4096, &cuts).send(&server))?;
    }
}

#[test]
fn a_guest_that_misbehaved_is_served_on() {
    let fs = Recorder::default();
    let server = started(&fs);
    send(&server, &numbered(u32::MAX, 0, &[0xff; 300]));
    assert_eq!(send(&server, &request(Opcode::Statfs, 1, &[]))[4..8], [0; 4]);
    assert_eq!(send(&server, &init(45, InitFlags::all())).len(), 80);
}

/// A request in front of `data` MiB that are the same memory again and again, and as much space for the reply. Gives the reply.
fn send_large(server: &Server<&Recorder>, opcode: Opcode, arguments: &[u8], data: u64, space: u64) -> Vec<u8> {
    const HEADER: u64 = 16;
    const REQUEST_AT: u64 = 4096;
    const DATA: (u64, u64) = (1 << 20, 1 << 20);
    let (memory, _file) = Memory::memfd("large", 2 << 20, 0).unwrap();
    let total = data * DATA.1;
    let request = with_header(request(opcode, 7, arguments), |header| header.len += total as u32);
    memory.write(REQUEST_AT, &request).unwrap();
    let (mut readable, mut writable) = (Pieces::new(&memory), Pieces::new(&memory));
    readable.push(REQUEST_AT, request.len() as u64).unwrap();
    writable.push(0, HEADER).unwrap();
    for (pieces, count) in [(&mut readable, data), (&mut writable, space)] {
        for _ in 0..count {
            pieces.push(DATA.0, DATA.1).unwrap();
        }
    }
    let answer = server.dispatch(&mut Reader::new(&readable), &mut Writer::new(&writable), OnBlock::Wait);
    let Answer::Done(written) = answer else {
        panic!("nothing here is put off or left: {answer:?}");
    };
    let mut reply = vec![0; (written as usize).min(HEADER as usize)];
    memory.read(0, &mut reply).unwrap();
    reply
}

/// It would keep its queue busy, and whoever commands the queue waiting.
#[test]
fn a_request_larger_than_init_allows_is_refused_whatever_space_it_has() {
    const MIB: u32 = 1 << 20;
    let fs = Recorder::default();
    let server = started(&fs);
    let read = |size| wire::ReadIn {
        fh: 77,
        size,
        ..Default::default()
    };
    for opcode in [Opcode::Read, Opcode::Readdir, Opcode::Readdirplus] {
        let large = send_large(&server, opcode, read(16 * MIB + 1).as_bytes(), 0, 17);
        assert_eq!(large, failure(libc::EINVAL), "{opcode:?}");
    }
    let write = wire::WriteIn {
        fh: 77,
        size: 2 * MIB,
        ..Default::default()
    };
    assert_eq!(
        send_large(&server, Opcode::Write, write.as_bytes(), 2, 1),
        failure(libc::EINVAL)
    );
    let forgets = wire::BatchForgetIn {
        count: 2 * MIB / 16,
        dummy: 0,
    };
    send_large(&server, Opcode::BatchForget, forgets.as_bytes(), 2, 0);
    assert!(fs.take().is_empty());

    // What is as large as it may be: guests may have pages of 64 KiB.
    send_large(&server, Opcode::Read, read(16 * MIB).as_bytes(), 0, 16);
    assert_eq!(fs.take().len(), 1);
    let write = wire::WriteIn { size: MIB, ..write };
    send_large(&server, Opcode::Write, write.as_bytes(), 1, 1);
    assert_eq!(fs.take().len(), 1);
    let forgets = wire::BatchForgetIn {
        count: MIB / 16,
        dummy: 0,
    };
    send_large(&server, Opcode::BatchForget, forgets.as_bytes(), 1, 0);
    assert_eq!(fs.take().len(), MIB as usize / 16);
}
