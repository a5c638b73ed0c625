//! The confined daemon of a network device makes no system call that it may not make.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use driver::{Guest, Options};
use rustix::process::{Pid, Signal, kill_process};

const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
const OFFLOADS: u64 = 0x7f83;

fn start(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listens = lines.map_while(Result::ok).any(|line| line.contains("qemu-system"));
    assert!(listens, "it never listens");
    child
}

fn connect(socket: &Path, queues: u16, features: u64) -> Guest {
    let options = Options {
        queues,
        place_size: 80 << 10,
        features: Options::default().features | features,
        ..Options::default()
    };
    Guest::connect(socket, &options).unwrap()
}

fn end(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_confined_daemon_exchanges_frames_with_passt() {
    let directory = tempfile::tempdir().unwrap();
    let [socket, passt] = ["socket", "passt"].map(|name| directory.path().join(name));
    let listener = UnixListener::bind(&passt).unwrap();
    let mut command = crate::innkeeper(["net"]);
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--passt-socket")
        .arg(&passt);
    let child = start(command);
    let mut network = listener.accept().unwrap().0;
    network.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut guest = connect(&socket, 2, 0);
    guest.queues[0].submit(&[], 100).unwrap();
    guest.queues[1].call(&[&[0; 12][..], &[7; 60]].concat(), 0).unwrap();
    let mut frame = [0; 64];
    network.read_exact(&mut frame).unwrap();
    assert_eq!(frame[..], [&[0, 0, 0, 60][..], &[7; 60]].concat());
    network.write_all(&frame).unwrap();
    assert_eq!(guest.queues[0].wait().unwrap().2[12..], [7; 60]);
    drop(guest);
    end(child);
}

#[test]
fn a_confined_daemon_uses_the_queues_and_offloads_of_a_tap() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut probe = Command::new("unshare");
    probe.args(["--net", "ip", "tuntap", "add", "dev", "probe", "mode", "tap"]);
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no tap interface can be made here (needs root, /dev/net/tun, unshare and ip)");
        return;
    }
    let program = crate::innkeeper(["net"]);
    let mut command = Command::new("unshare");
    command.arg("--net").arg(program.get_program()).args(program.get_args());
    command.arg("--socket-path").arg(&socket);
    command.args(["--tap", "tap0", "--queue-pairs", "2"]);
    let child = start(command);
    // Twice: the first machine leaves the interface as the next one needs it.
    for _ in 0..2 {
        let mut guest = connect(&socket, 5, CTRL_GUEST_OFFLOADS | CTRL_VQ | MQ | OFFLOADS);
        for request in [
            &[4, 0, 2, 0][..],
            &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 1, 0],
            &[4, 0, 2, 0],
        ] {
            assert_eq!(guest.queues[4].call(request, 1).unwrap().1, [0], "{request:?}");
        }
        for queue in [1, 3] {
            guest.queues[queue - 1].submit(&[], 2000).unwrap();
            guest.queues[queue].call(&[&[0; 12][..], &[2; 60]].concat(), 0).unwrap();
        }
    }
    end(child);
}
