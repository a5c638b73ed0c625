use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use driver::fs::{ROOT, Requests, field_u64};
use tempfile::TempDir;

use crate::session::{Daemon, Session};

/// What the file outside of the share contains.
const SECRET: &[u8] = b"secret";

/// A share with a directory `sub`, and beside it the file `secret` and the directory `elsewhere`.
pub(crate) struct World {
    host: TempDir,
    pub(crate) session: Session,
}

impl World {
    /// Starts a daemon as root in `sandbox`, with the checks in `without` switched off.
    pub(crate) fn new(sandbox: &str, without: &str) -> World {
        let host = TempDir::new().unwrap();
        let data = host.path().join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::create_dir(host.path().join("elsewhere")).unwrap();
        fs::write(host.path().join("secret"), SECRET).unwrap();
        // The socket has a directory of its own, in which the daemon may remove files.
        let directory = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
        command.env("INNKEEPER_WITHOUT_CHECK", without);
        command
            .arg("share")
            .arg(&data)
            .args(["--sandbox", sandbox, "--seccomp", "kill"]);
        command.arg("--socket-path").arg(directory.path().join("socket"));
        let daemon = Daemon::run(&mut command, directory);
        let session = Session::of(daemon, Requests::new(0, 0));
        World { host, session }
    }

    /// A path of the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    pub(crate) fn secret_is_unchanged(&self) -> bool {
        fs::read(self.path("secret")).is_ok_and(|bytes| bytes == SECRET)
    }

    pub(crate) fn secret_has_mode(&self, mode: u32) -> bool {
        fs::metadata(self.path("secret")).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode)
    }

    /// LOOKUP.
    pub(crate) fn find(&mut self, parent: u64, name: &[u8]) -> Option<u64> {
        let entry = self.session.ask(|requests| requests.lookup(parent, name)).ok()?;
        Some(field_u64(&entry, 0))
    }

    /// SYMLINK to `target`, and LOOKUP of the link.
    pub(crate) fn follow(&mut self, target: &str) -> Option<u64> {
        // Its answer has the attributes of the target, which may be out of reach.
        let _ = self
            .session
            .ask(|requests| requests.symlink(ROOT, b"link", target.as_bytes()));
        assert!(self.path("data/link").is_symlink());
        self.find(ROOT, b"link")
    }

    /// OPEN and READ.
    pub(crate) fn read(&mut self, node: u64) -> Option<Vec<u8>> {
        let opened = self.session.ask(|requests| requests.open(node, 0)).ok()?;
        let handle = field_u64(&opened, 0);
        self.session.ask(|requests| requests.read(node, handle, 0, 64)).ok()
    }

    /// The same, of the file outside.
    pub(crate) fn reads_secret(&mut self, node: u64) -> Option<()> {
        (self.read(node)? == SECRET).then_some(())
    }

    /// An attack that was stopped by the daemon's end was not stopped by the sandbox.
    #[track_caller]
    pub(crate) fn assert_serving(&mut self, attack: &str) {
        let root = self.session.ask(|requests| requests.getattr(ROOT));
        assert!(root.is_ok(), "{attack}: {root:?}");
    }
}
