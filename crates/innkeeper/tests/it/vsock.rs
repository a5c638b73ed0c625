use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use driver::Guest;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{assert_refused, innkeeper};

#[expect(dead_code, reason = "the tests of the device use all of it")]
#[path = "../../../devices/tests/vsock/driver.rs"]
mod guest;

use guest::{Client, EOM, NO_RECEIVE, NO_SEND, RST, SEQPACKET, SHUTDOWN, STREAM, accept_messages, options};

/// `innkeeper vsock` in a directory of its own, until dropped.
struct Daemon {
    directory: TempDir,
    child: Child,
}

impl Daemon {
    fn start(sandbox: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, socket) = (directory.path().join("v"), directory.path().join("socket"));
        let mut command = innkeeper(["vsock", "--guest-cid", "77", "--sandbox", sandbox, "--uds-path"]);
        command.arg(path).arg("--socket-path").arg(socket);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("vhost-user-vsock-pci")));
        Self { directory, child }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("v")
    }

    fn path_of(&self, port: u32) -> PathBuf {
        self.directory.path().join(format!("v_{port}"))
    }

    fn guest(&self) -> Client {
        let guest = Guest::connect(&self.directory.path().join("socket"), &options(false)).unwrap();
        let mut client = Client::new(guest);
        client.give_buffers(8);
        client
    }

    fn end(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.end();
        }
    }
}

/// `innkeeper connect` with piped streams.
fn connect(path: &Path, port: u32) -> Child {
    let mut command = innkeeper(["connect"]);
    command.arg(path).arg(port.to_string());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn refused(path: &Path, words: &[&str]) {
    let output: Output = connect(path, 22).wait_with_output().unwrap();
    assert_refused(&output, 1, words);
}

/// Nothing that it does is missing in its declaration: streams and messages, both ways, to their ends.
#[rstest]
fn host_and_guest_reach_each_other_in_every_sandbox(
    #[values("auto", "namespace", "chroot", "landlock", "none")] sandbox: &str,
) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not every sandbox is an ordinary user's");
        return;
    }
    let mut daemon = Daemon::start(sandbox);
    let mut client = daemon.guest();
    // Made after the daemon was confined.
    let listener = UnixListener::bind(daemon.path_of(5000)).unwrap();
    let mut flow = client.open(STREAM, 1, 5000);
    let (mut host, _) = listener.accept().unwrap();
    // More than a socket holds.
    let bytes = vec![7; 1 << 20];
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut seen = vec![0; 1 << 20];
            host.read_exact(&mut seen).unwrap();
            host.write_all(&seen).unwrap();
            seen
        });
        client.write(&mut flow, &bytes);
        assert_eq!(client.read(&mut flow, bytes.len()), bytes);
        assert_eq!(read.join().unwrap(), bytes);
    });
    client.send(&flow.packet(SHUTDOWN, NO_SEND | NO_RECEIVE, 0), &[]);
    client.expect(&mut flow, RST);
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);

    let messages = daemon.listen_for_messages();
    let mut flow = client.open(SEQPACKET, 2, 5001);
    let host = accept_messages(&messages);
    client.send(&flow.packet(guest::RW, EOM, 3), b"one");
    let mut space = [0; 1 << 16];
    assert_eq!(rustix::io::read(&host, &mut space), Ok(3));
    rustix::io::write(&host, &[1; 50_000]).unwrap();
    assert_eq!(client.read_message(&mut flow), [1; 50_000]);

    let mut program = connect(&daemon.path(), 22);
    let mut flow = client.accept();
    program.stdin.take().unwrap().write_all(b"question").unwrap();
    assert_eq!(client.read(&mut flow, 8), b"question");
    assert_eq!(client.expect(&mut flow, SHUTDOWN).0.flags, NO_SEND);
    client.write(&mut flow, b"answer");
    client.send(&flow.packet(SHUTDOWN, NO_SEND | NO_RECEIVE, 0), &[]);
    let output = program.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"answer"[..]));

    assert_eq!(daemon.end(), Some(0), "no call was missing");
    assert!(!daemon.path().exists(), "the socket is removed");
}

impl Daemon {
    fn listen_for_messages(&self) -> std::os::fd::OwnedFd {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(self.path_of(5001)).unwrap()).unwrap();
        listen(&listener, 10).unwrap();
        listener
    }
}

#[test]
fn connect_reports_what_cannot_be_reached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    refused(&path, &["no such socket", "innkeeper vsock --uds-path"]);
    drop(UnixListener::bind(&path).unwrap());
    refused(&path, &["nobody listens", "start `innkeeper vsock` again"]);
    let daemon = Daemon::start("auto");
    let mut client = daemon.guest();
    let program = connect(&daemon.path(), 22);
    let (packet, _) = client.receive();
    let flow = guest::Flow::new(STREAM, 22, packet.source.1);
    client.send(&flow.packet(RST, 0, 0), &[]);
    let output = program.wait_with_output().unwrap();
    assert_refused(&output, 1, &["refuses port 22", "AF_VSOCK"]);
}

#[test]
fn connect_takes_no_other_program_for_the_device() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    let listener = UnixListener::bind(&path).unwrap();
    for answer in ["HTTP/1.1 400 Bad Request\r\n", "NO\n"] {
        let program = connect(&path, 22);
        let (mut stream, _): (UnixStream, _) = listener.accept().unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        let output = program.wait_with_output().unwrap();
        assert_refused(&output, 1, &["does not answer as `innkeeper vsock` does"]);
    }
}
