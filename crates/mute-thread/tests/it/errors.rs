//! Each failure: one sentence, the right exit code, and a database as before.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::Duration;

use crate::mailbox::{MUTE_THREAD, Mailbox, message, run};

fn assert_fails(output: &Output, code: i32, sentence: &str) {
    let complaint = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    assert!(complaint.starts_with("mute-thread: "), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains(sentence), "{complaint}");
    assert!(output.stdout.is_empty());
}

fn mailbox_with_a_message() -> Mailbox {
    let mailbox = Mailbox::new();
    mailbox.receive("a", &[]);
    mailbox
}

#[test]
fn a_message_without_a_usable_id_is_refused() {
    let mailbox = mailbox_with_a_message();
    let before = mailbox.dump();
    let endless = vec![b'x'; 2 << 20];
    for (input, sentence) in [
        (&b""[..], "has no Message-ID"),
        (b"Subject: x\n\nMessage-ID: <a@test>\n", "has no Message-ID"),
        (b"Message-ID:\n\n", "cannot be empty"),
        (b"Message-ID: <a@\x01test>\n\n", "control characters"),
        (
            b"Message-ID: =?utf-8?q?<a@test=0A-inbox_--_*>?=\n\n",
            "control characters",
        ),
    ] {
        let output = mailbox.run(&["add"], input);
        assert_fails(&output, 2, sentence);
        assert_eq!(mailbox.dump(), before);
    }
    let mut child = mailbox.command(MUTE_THREAD);
    let mut child = child
        .arg("add")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It need not read to the end of what is no mail.
    drop(child.stdin.take().unwrap().write_all(&endless));
    assert_fails(&child.wait_with_output().unwrap(), 2, "not a mail message");
    assert_eq!(mailbox.dump(), before);
}

#[test]
fn no_id_reaches_into_the_query() {
    let mailbox = mailbox_with_a_message();
    let before = mailbox.dump();
    for id in [
        "x\" or id:\"a@test",
        "x\" or *",
        "*",
        "a@test)",
        "x}\" or tag:inbox or thread:\"{*",
        "a@test\" ",
        "\"a@test\"",
    ] {
        for argument in [id.to_owned(), format!("<{id}>")] {
            assert_fails(&mailbox.run(&["add", &argument], b""), 1, "not in the notmuch database");
        }
        let input = message("a", &[]).replace("a@test", id);
        assert_fails(
            &mailbox.run(&["add"], input.as_bytes()),
            1,
            "not in the notmuch database",
        );
    }
    assert_eq!(mailbox.dump(), before);
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let mailbox = mailbox_with_a_message();
    let before = mailbox.dump();
    for arguments in [
        &["add", "a@test\n-inbox -- *"][..],
        &["add", ""],
        &["add", "--tag", "unread", "a@test"],
        &["add", "--tag", "", "a@test"],
        &["add", "--tag", "a\nb", "a@test"],
        &["add", "--wait", "0", "a@test"],
        &["ad"],
        &[],
    ] {
        let output = mailbox.run(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(mailbox.dump(), before);
}

#[test]
fn a_missing_database_is_told() {
    let mailbox = mailbox_with_a_message();
    for arguments in [&["apply"][..], &["list"], &["add", "a@test"], &["apply", "--dry-run"]] {
        let mut named = vec!["--database", "/nowhere"];
        named.extend(arguments);
        assert_fails(&mailbox.run(&named, b""), 1, "notmuch cannot");
        let mut unset = mailbox.command(MUTE_THREAD);
        unset.env("NOTMUCH_CONFIG", mailbox.home().join("nowhere"));
        assert_fails(&run(unset.args(arguments), b""), 1, "notmuch cannot");
    }
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn a_missing_notmuch_is_told() {
    let mailbox = mailbox_with_a_message();
    let before = mailbox.dump();
    let mut command = mailbox.command(MUTE_THREAD);
    assert_fails(
        &run(command.arg("apply").env("PATH", "/nowhere"), b""),
        1,
        "not installed",
    );
    assert_eq!(mailbox.dump(), before);
}

/// A program that holds the write lock until it is told to stop.
fn lock(mailbox: &Mailbox) -> Child {
    let mut command = mailbox.command("notmuch");
    let child = command.args(["tag", "--batch"]).stdin(Stdio::piped()).spawn().unwrap();
    let files = format!("/proc/{}/fd", child.id());
    let has_the_lock = || {
        let mut files = fs::read_dir(&files).unwrap().flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(|path| path.ends_with("flintlock")))
    };
    while !has_the_lock() {
        thread::sleep(Duration::from_millis(5));
    }
    // The file is open a moment before it is locked.
    thread::sleep(Duration::from_millis(100));
    child
}

#[test]
fn a_locked_database_is_waited_for_and_then_given_up() {
    let mailbox = mailbox_with_a_message();
    let mut locker = lock(&mailbox);
    for arguments in [
        &["add", "--wait", "1", "a@test"][..],
        &["remove", "--wait", "1", "a@test"],
        &["apply", "--wait=1"],
    ] {
        assert_fails(&mailbox.run(arguments, b""), 1, "locked by another program");
    }
    // `notmuch dump` would wait for the lock as well.
    assert_eq!((mailbox.unread(), mailbox.muted()), (vec!["a".to_owned()], vec![]));

    let mut waiting = mailbox.command(MUTE_THREAD).args(["add", "a@test"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "waits for the lock");
    drop(locker.stdin.take());
    assert!(locker.wait().unwrap().success());
    assert!(waiting.wait().unwrap().success());
    assert!(mailbox.unread().is_empty());
}

#[test]
fn a_broken_pipe_is_told() {
    let mailbox = mailbox_with_a_message();
    mailbox.mute(&["add", "a@test"]);
    let before = mailbox.dump();
    for arguments in [
        &["list"][..],
        &["remove", "--dry-run", "a@test"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = mailbox.command(MUTE_THREAD);
        command.args(arguments).stdout(writer).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert_fails(&output, 1, "cannot write to standard output: Broken pipe");
    }
    assert_eq!(mailbox.dump(), before);
}

#[test]
fn unreadable_input_is_told() {
    let mailbox = mailbox_with_a_message();
    let before = mailbox.dump();
    let mut command = mailbox.command(MUTE_THREAD);
    command.arg("add").stdin(fs::File::open(mailbox.home()).unwrap());
    assert_fails(&command.output().unwrap(), 2, "cannot read the message: Is a directory");
    assert_eq!(mailbox.dump(), before);
}

#[test]
fn the_sender_of_a_large_message_sees_no_broken_pipe() {
    let mailbox = mailbox_with_a_message();
    let mut large = message("a", &[]).into_bytes();
    large.resize(8 << 20, b'x');
    mailbox.mute_message(&["add"], &large);
    assert!(mailbox.unread().is_empty());
    large.splice(..0, *b"X: y\n\n");
    assert_fails(&mailbox.run(&["add"], &large), 2, "has no Message-ID");
}
