//! A daemon that shares a directory, and a guest in a session with it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use driver::fs::{Request, Requests, reply};
use driver::{Guest, Options};
use tempfile::TempDir;

/// An innkeeper that shares, and what it announced.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) announced: String,
    pub(crate) directory: TempDir,
}

impl Daemon {
    /// A share.
    pub(crate) fn run(command: &mut Command, directory: TempDir) -> Self {
        Self::run_until(command, directory, "--rlimit-nofile")
    }

    /// A device whose announcement ends with `last`.
    pub(crate) fn run_until(command: &mut Command, directory: TempDir, last: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut announced = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !announced.contains(last) {
            announced.push_str(&lines.next().expect("innkeeper ended early").unwrap());
            announced.push('\n');
        }
        Self {
            child,
            announced,
            directory,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon that shares a directory, and a guest in a session.
pub(crate) struct Session {
    pub(crate) daemon: Daemon,
    pub(crate) guest: Guest,
    pub(crate) requests: Requests,
}

impl Session {
    /// Of a daemon that runs.
    pub(crate) fn of(daemon: Daemon, requests: Requests) -> Self {
        let guest = Guest::connect(&daemon.socket(), &Options::default()).unwrap();
        let mut session = Self {
            daemon,
            guest,
            requests,
        };
        session.ask(|requests| requests.init(31, 0)).unwrap();
        session
    }

    /// The next guest of the same daemon, after this one.
    pub(crate) fn next(self) -> Self {
        drop(self.guest);
        Self::of(self.daemon, Requests::new(self.requests.uid, self.requests.gid))
    }

    pub(crate) fn ask(&mut self, request: impl FnOnce(&mut Requests) -> Request) -> Result<Vec<u8>, i32> {
        let request = request(&mut self.requests);
        let (written, bytes) = self.guest.queues[1]
            .call(&request.readable, request.reply_space)
            .unwrap();
        reply(&request, written, &bytes).unwrap().map(<[u8]>::to_vec)
    }
}
