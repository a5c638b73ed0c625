use std::fs;
use std::process::Command;

use driver::fs::{ROOT, Requests, field_u64};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::session::{Daemon, Session};

/// Fails if anything switches on the feature of the escape suite, such as a dependency of a test.
#[test]
fn an_ordinary_build_has_no_switches_for_its_checks() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(directory.path().join("secret"), "").unwrap();
    std::os::unix::fs::symlink("../secret", data.join("link")).unwrap();
    mknodat(CWD, data.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    command.env("INNKEEPER_WITHOUT_CHECK", "kind,name,beneath");
    command.arg("share").arg(&data).args(["--sandbox", "none"]);
    command.arg("--socket-path").arg(directory.path().join("socket"));
    let daemon = Daemon::run(&mut command, directory);
    let mut session = Session::of(daemon, Requests::new(0, 0));
    let mut open = |name| {
        let entry = session.ask(|requests| requests.lookup(ROOT, name))?;
        session.ask(|requests| requests.open(field_u64(&entry, 0), libc::O_RDWR as u32))
    };
    assert_eq!(open(b"fifo"), Err(libc::ENXIO));
    assert_eq!(open(b"../secret"), Err(libc::EINVAL));
    assert_eq!(open(b"link"), Err(libc::ELOOP));
}
