use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{assert_refused, innkeeper};

fn help(words: &[&str]) -> String {
    let output = innkeeper(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that listen on a socket.
fn devices() -> Vec<String> {
    let list = help(&["help"]);
    let commands = list.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && help(&[name, "--help"]).contains("--socket-path <SOCKET>"));
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.iter().any(|name| name == "share"), "{names:?}");
    names
}

/// A command line that serves `device`, with `directory`, or an image in it, if it needs one.
fn serving(device: &str, directory: &Path, options: &[&str]) -> Command {
    let mut command = innkeeper([device]);
    command.args(options);
    if help(&[device, "--help"]).contains("<DIR>\n") {
        command.arg(directory);
    }
    if help(&[device, "--help"]).contains("--uds-path") {
        command
            .args(["--guest-cid", "3", "--uds-path"])
            .arg(directory.join("v"));
    }
    if help(&[device, "--help"]).contains("--passt-socket") {
        command.arg("--passt-socket").arg(network());
    }
    if help(&[device, "--help"]).contains("<IMAGE>\n") {
        command.arg(image(directory));
    }
    command
}

/// The socket of a network that nobody reads from.
fn network() -> PathBuf {
    static NETWORK: OnceLock<(TempDir, UnixListener)> = OnceLock::new();
    let (directory, _listener) = NETWORK.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("passt")).unwrap();
        (directory, listener)
    });
    directory.path().join("passt")
}

fn image(directory: &Path) -> PathBuf {
    let path = directory.join("image");
    // Where the directory is not ours, the command line is refused before the image is opened.
    if directory != Path::new("/") {
        std::fs::write(&path, [0; 4096]).unwrap();
    }
    path
}

/// Starts it, and reads what it prints until it listens.
fn start(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = String::new();
    for line in lines {
        said.push_str(&line);
        said.push('\n');
        if line.contains("qemu-system") {
            break;
        }
    }
    (child, said)
}

#[test]
fn every_device_prints_a_command_line_of_qemu_and_ends_with_a_signal() {
    for device in devices() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let path = socket.to_str().unwrap();
        let (mut child, said) = start(serving(&device, directory.path(), &["--socket-path", path]));
        let device_or_network = ["device vhost-user-", "netdev vhost-user,"];
        let is_said = |form| said.contains(&format!("path={path} -{form}"));
        assert!(device_or_network.into_iter().any(is_said), "{device}: {said}");
        UnixStream::connect(&socket).unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{device}");
        assert!(!socket.exists(), "{device} left its socket");
    }
}

/// By a process of its own, which the daemon leaves behind when it is killed.
#[test]
fn the_socket_goes_with_a_daemon_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let (mut child, _) = start(serving(
        "rng",
        directory.path(),
        &["--socket-path", socket.to_str().unwrap()],
    ));
    child.kill().unwrap();
    child.wait().unwrap();
    while socket.exists() {
        std::thread::yield_now();
    }
}

#[test]
fn every_device_offers_packed_rings_to_qemu_if_they_are_wanted() {
    for device in devices() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let options = ["--socket-path", socket.to_str().unwrap(), "--ring", "packed"];
        let (mut child, said) = start(serving(&device, directory.path(), &options));
        assert!(said.contains(",packed=on"), "{device}: {said}");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn no_device_takes_a_socket_from_somebody_else() {
    for device in devices() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let options = ["--socket-path", socket.to_str().unwrap()];
        let output = serving(&device, directory.path(), &options).output().unwrap();
        assert_refused(&output, 1, &["cannot listen on", "in use by another process"]);
    }
}

#[test]
fn every_device_needs_one_socket() {
    for device in devices() {
        let output = serving(&device, Path::new("/"), &[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{device}: {said}");
        assert!(said.contains("--socket-path"), "{device}: {said}");
    }
}

#[test]
fn one_device_takes_one_socket() {
    for device in ["share", "rng", "vsock"] {
        let options = ["--socket-path", "one", "--socket-path", "two"];
        let output = serving(device, Path::new("/"), &options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{device}: {said}");
        assert!(
            said.contains("one socket is for one virtual machine"),
            "{device}: {said}"
        );
    }
}

#[test]
fn a_source_of_entropy_that_cannot_be_read_is_told_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    for (source, reason) in [("/nowhere", "No such file"), ("/", "is a directory")] {
        let options = ["rng", "--socket-path", socket.to_str().unwrap(), "--source", source];
        let output = innkeeper(options).output().unwrap();
        assert_refused(&output, 1, &[source, reason, "--source"]);
    }
}

#[test]
fn a_network_that_cannot_be_used_is_told_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let cases: [(&[&str], &[&str]); 4] = [
        (&["--tap", "much-too-long-a-name"], &["is no name of an interface"]),
        (&["--tap", "lo"], &["lo"]),
        (
            &["--passt-socket", "/nowhere"],
            &["cannot connect to /nowhere", "passt --socket"],
        ),
        (&["--passt", "--queue-pairs", "2"], &["--queue-pairs", "--tap"]),
    ];
    for (options, reasons) in cases {
        let options = [&["net", "--socket-path", socket.to_str().unwrap()], options].concat();
        let output = innkeeper(options).output().unwrap();
        assert_refused(&output, 1, reasons);
    }
}

#[test]
fn an_image_that_cannot_be_served_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("odd"), [0; 1000]).unwrap();
    std::fs::write(at("image"), [0; 4096]).unwrap();
    let socket = at("socket");
    let served = ["blk", &at("image"), "--socket-path", &socket].map(str::to_owned);
    let (mut child, _) = start(innkeeper(served.iter().map(String::as_str)));
    for (image, words) in [
        (at("missing"), ["no such image", "truncate -s 10G"]),
        (at("."), ["is a directory", "block device"]),
        (at("odd"), ["1000 bytes", "truncate -s 1024"]),
        (at("image"), ["in use by another program", "--readonly"]),
        ("/dev/null".into(), ["neither a regular file", "block device"]),
    ] {
        let other = at("other");
        let output = innkeeper(["blk", &image, "--socket-path", &other]).output().unwrap();
        assert_refused(&output, 1, &words);
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_cid_or_path_that_no_guest_can_have_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("file"), "").unwrap();
    let _listener = UnixListener::bind(at("busy")).unwrap();
    let run = |cid: &str, path: &str| {
        let socket = at("socket");
        innkeeper([
            "vsock",
            "--guest-cid",
            cid,
            "--uds-path",
            path,
            "--socket-path",
            &socket,
        ])
        .output()
        .unwrap()
    };
    let reserved = ["0", "1", "2", "4294967295"].map(|cid| (cid, "reserved"));
    for (cid, reason) in reserved.into_iter().chain([("4294967296", "32 bits")]) {
        let output = run(cid, &at("v"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(reason) && said.contains("from 3 to 4294967294"), "{said}");
    }
    let long = run("3", &format!("/tmp/{}", "v".repeat(92)));
    assert_refused(&long, 1, &["97 bytes", "96", "--uds-path"]);
    assert_refused(&run("3", &at("busy")), 1, &["in use by another process", "--uds-path"]);
    assert_refused(&run("3", &at("file")), 1, &["not a socket", "--uds-path"]);
    assert_refused(&run("3", "/nowhere/v"), 1, &["/nowhere", "No such file", "--uds-path"]);
    assert_refused(&run("3", "/"), 1, &["names a directory", "--uds-path"]);
}
