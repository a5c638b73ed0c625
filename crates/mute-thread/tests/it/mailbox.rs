//! A Maildir and a notmuch database of their own, for one test.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

pub(crate) const MUTE_THREAD: &str = env!("CARGO_BIN_EXE_mute-thread");

pub(crate) struct Mailbox {
    home: TempDir,
}

impl Mailbox {
    /// An empty mailbox; Maildir flags follow the tags.
    pub(crate) fn new() -> Self {
        Self::with_flags(true)
    }

    pub(crate) fn with_flags(synchronize: bool) -> Self {
        let mailbox = Self {
            home: tempfile::tempdir().unwrap(),
        };
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(mailbox.maildir().join(part)).unwrap();
        }
        let config = format!(
            "[database]\npath={}\n[user]\nname=Test\nprimary_email=test@test\n[new]\ntags=unread;inbox\n\
             [search]\nexclude_tags=deleted;spam\n[maildir]\nsynchronize_flags={synchronize}\n",
            mailbox.maildir().display()
        );
        fs::write(mailbox.config(), config).unwrap();
        mailbox.index();
        mailbox
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn maildir(&self) -> PathBuf {
        self.home().join("mail")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home().join("config")
    }

    /// A message in the Maildir, as a delivery agent puts it there.
    pub(crate) fn deliver_bytes(&self, name: &str, message: &[u8]) {
        fs::write(self.maildir().join("new").join(name), message).unwrap();
    }

    /// A message with the id `<id@test>` that answers others of the kind; its subject is its id.
    pub(crate) fn deliver(&self, id: &str, answers: &[&str]) {
        self.deliver_bytes(id, message(id, answers).as_bytes());
    }

    /// Delivers and indexes.
    pub(crate) fn receive(&self, id: &str, answers: &[&str]) {
        self.deliver(id, answers);
        self.index();
    }

    pub(crate) fn index(&self) {
        self.notmuch(["new", "--quiet"]);
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.home()).env("NOTMUCH_CONFIG", self.config());
        for name in [
            "NOTMUCH_DATABASE",
            "NOTMUCH_PROFILE",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
        ] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn notmuch<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.command("notmuch").args(arguments).output();
        let output = output.expect("notmuch is installed by `cargo xtask setup`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every tag of every message: all that mute-thread could change.
    pub(crate) fn dump(&self) -> String {
        self.notmuch(["dump"])
    }

    /// The ids (without `@test`) of the messages that match, in order.
    pub(crate) fn ids(&self, query: &str) -> Vec<String> {
        let found = self.notmuch(["search", "--exclude=false", "--output=messages", "--", query]);
        let mut ids: Vec<_> = found
            .lines()
            .map(|line| line.trim_start_matches("id:").trim_end_matches("@test").to_owned())
            .collect();
        ids.sort();
        ids
    }

    pub(crate) fn unread(&self) -> Vec<String> {
        self.ids("tag:unread")
    }

    pub(crate) fn muted(&self) -> Vec<String> {
        self.ids("tag:muted")
    }

    /// Runs mute-thread with this input, all of which it must take.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        run(self.command(MUTE_THREAD).args(arguments), input)
    }

    /// Runs mute-thread, which must succeed; what it prints.
    pub(crate) fn mute(&self, arguments: &[&str]) -> String {
        self.mute_message(arguments, b"")
    }

    pub(crate) fn mute_message(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.run(arguments, input);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaint.is_empty(),
            "{arguments:?}: {complaint}"
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let written = pipe.write_all(input);
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    written.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    output
}

pub(crate) fn message(id: &str, answers: &[&str]) -> String {
    let references: String = answers.iter().map(|id| format!(" <{id}@test>")).collect();
    let references = if answers.is_empty() {
        String::new()
    } else {
        format!("References:{references}\n")
    };
    format!(
        "From: Sender <sender@test>\nTo: test@test\nSubject: {id}\nDate: Thu, 01 Jan 2026 00:00:00 +0000\n\
         Message-ID: <{id}@test>\n{references}\nBody of {id}.\n"
    )
}
