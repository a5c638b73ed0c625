use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;

use driver::{Guest, Options};
use rstest::rstest;
use tempfile::TempDir;
use virtqueue::features::{EVENT_IDX, INDIRECT_DESC};

use crate::innkeeper;
use crate::session::Daemon;

const SECTOR: usize = 512;
const SECTORS: u64 = 64;

fn start(options: &[&str]) -> Daemon {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(directory.path().join("image"), vec![7; SECTORS as usize * SECTOR]).unwrap();
    run(directory, options)
}

fn run(directory: TempDir, options: &[&str]) -> Daemon {
    let mut command: Command = innkeeper(["blk"]);
    command.arg(directory.path().join("image")).args(options);
    command.arg("--socket-path").arg(directory.path().join("socket"));
    Daemon::run_until(&mut command, directory, "vhost-user-blk-pci")
}

/// Type, sector and data of a request (VIRTIO 1.1 5.2.6).
fn request(kind: u32, sector: u64, data: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes(), data].concat()
}

/// Every command that a guest has, under the list of system calls that ends the daemon for any other.
#[rstest]
fn a_confined_daemon_serves_all_commands(
    #[values("auto", "threads")] aio: &str,
    #[values(&[][..], &["--direct"])] direct: &[&str],
    #[values("namespace", "landlock")] sandbox: &str,
) {
    let options = [
        "--aio",
        aio,
        "--seccomp",
        "kill",
        "--sandbox",
        sandbox,
        "--num-queues",
        "2",
    ];
    let mut daemon = start(&[&options, direct].concat());
    for packed in [false, true] {
        let mut guest = Guest::connect(
            &daemon.socket(),
            &Options {
                packed,
                features: INDIRECT_DESC | EVENT_IDX | 0x7fff,
                // Such cuts are not aligned for direct I/O.
                descriptor_bytes: 1000,
                ..Options::default()
            },
        )
        .unwrap();
        for queue in [0, 1] {
            for writeback in [0, 1] {
                guest.frontend().set_config(32, &[writeback]).unwrap();
                let mut call = |request: &[u8], space| {
                    let (_, bytes) = guest.queues[queue].call(request, space).unwrap();
                    bytes
                };
                let segment = |sector: u64, sectors: u32, flags: u32| {
                    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
                };
                let done = [0];
                assert_eq!(call(&request(1, 8, &[9; 8 * SECTOR]), 1), done);
                assert_eq!(call(&request(1, 3, &[9; SECTOR]), 1), done);
                assert_eq!(call(&request(4, 0, &[]), 1), done);
                assert_eq!(call(&request(0, 8, &[]), 8 * SECTOR as u32 + 1)[..4096], [9; 4096]);
                assert_eq!(call(&request(8, 0, &[]), 21)[20], 0);
                assert_eq!(call(&request(13, 0, &segment(16, 8, 1)), 1), done);
                assert_eq!(call(&request(13, 0, &segment(24, 3, 0)), 1), done);
                assert_eq!(call(&request(11, 0, &segment(32, 8, 0)), 1), done);
            }
        }
    }
    assert!(daemon.child.try_wait().unwrap().is_none(), "the daemon still runs");
    let image = fs::read(daemon.directory.path().join("image")).unwrap();
    let sector = |number: usize| &image[number * SECTOR..][..SECTOR];
    for (number, byte) in [(0, 7), (3, 9), (15, 9), (16, 0), (26, 0), (27, 7), (40, 7)] {
        assert_eq!(sector(number), [byte; SECTOR], "sector {number}");
    }
}

/// The daemon is killed while writes are in flight; its successor answers them, each once, as if nothing had been.
#[rstest]
fn writes_in_flight_outlive_a_daemon_that_is_killed(
    #[values(false, true)] packed: bool,
    #[values("auto", "threads")] aio: &str,
) {
    const LIVES: u8 = 8;
    let mut daemon = start(&["--aio", aio]);
    let options = Options {
        packed,
        queues: 1,
        features: INDIRECT_DESC | EVENT_IDX,
        ..Options::default()
    };
    let mut guest = Guest::connect(&daemon.socket(), &options).unwrap();
    assert!(guest.inflight().is_some());
    for life in 0..LIVES {
        let mut waiting = BTreeSet::new();
        for sector in 0..32 {
            let request = request(1, sector, &[life; SECTOR]);
            assert!(waiting.insert(guest.queues[0].submit(&request, 1).unwrap()));
        }
        // Some are answered by now, maybe.
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        let directory = std::mem::replace(&mut daemon.directory, tempfile::tempdir().unwrap());
        daemon = run(directory, &["--aio", aio]);
        guest.reconnect(UnixStream::connect(daemon.socket()).unwrap()).unwrap();
        while !waiting.is_empty() {
            match guest.queues[0].poll().unwrap() {
                Some((ticket, _, status)) => {
                    assert!(waiting.remove(&ticket), "one answer to a request");
                    assert_eq!(status, [0]);
                }
                None => std::thread::yield_now(),
            }
        }
        let image = fs::read(daemon.directory.path().join("image")).unwrap();
        assert_eq!(image[..32 * SECTOR], [life; 32 * SECTOR]);
        assert_eq!(image[32 * SECTOR..], [7; 32 * SECTOR]);
    }
}

#[test]
fn what_is_printed_names_the_queues() {
    let daemon = start(&["--num-queues", "3", "--ring", "packed", "--readonly"]);
    assert!(
        daemon
            .announced
            .contains("-device vhost-user-blk-pci,chardev=blk,num-queues=3,packed=on")
    );
    assert!(daemon.announced.contains("for reading"));
}
