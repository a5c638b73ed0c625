//! What muting does to threads.

use std::fs;

use crate::mailbox::{Mailbox, message};

#[test]
fn a_reply_to_a_muted_thread_is_read_until_the_thread_is_unmuted() {
    for flags in [true, false] {
        let mailbox = Mailbox::with_flags(flags);
        mailbox.deliver("root", &[]);
        mailbox.deliver("other", &[]);
        mailbox.receive("first", &["root"]);
        mailbox.notmuch(["tag", "+keep", "--", "id:first@test"]);
        mailbox.mute_message(&["add"], message("first", &["root"]).as_bytes());
        assert_eq!(mailbox.unread(), ["other"]);
        assert_eq!(mailbox.muted(), ["first", "root"]);
        assert_eq!(mailbox.ids("tag:keep and tag:inbox"), ["first"], "other tags stay");

        mailbox.receive("reply", &["root", "first"]);
        assert_eq!(mailbox.unread(), ["other", "reply"]);
        mailbox.mute(&["apply"]);
        assert_eq!(mailbox.unread(), ["other"]);
        let file = mailbox.notmuch(["search", "--output=files", "id:reply@test"]);
        assert_eq!(file.trim_end().ends_with(":2,S"), flags, "the Maildir's flag: {file}");

        mailbox.mute(&["remove", "<root@test>"]);
        assert!(mailbox.muted().is_empty());
        assert_eq!(mailbox.unread(), ["other"], "what was marked read stays read");
        mailbox.receive("further", &["reply"]);
        mailbox.mute(&["apply"]);
        assert_eq!(mailbox.unread(), ["further", "other"]);
    }
}

#[test]
fn a_thread_that_is_joined_to_a_muted_one_is_muted() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &[]);
    mailbox.receive("b", &[]);
    mailbox.mute(&["add", "a@test"]);
    assert_eq!(mailbox.unread(), ["b"]);
    mailbox.receive("joins", &["a", "b"]);
    mailbox.mute(&["apply"]);
    assert!(mailbox.unread().is_empty());
    assert_eq!(mailbox.muted(), ["a", "b", "joins"]);
    mailbox.mute(&["remove", "b@test"]);
    assert!(mailbox.muted().is_empty());
}

#[test]
fn messages_that_share_only_an_absent_one_are_one_thread() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &["absent"]);
    mailbox.receive("b", &["absent"]);
    mailbox.mute(&["add", "a@test"]);
    assert!(mailbox.unread().is_empty());
    let unknown = mailbox.run(&["add", "absent@test"], b"");
    assert_eq!(unknown.status.code(), Some(1), "a ghost is no message");
    mailbox.receive("absent", &[]);
    assert_eq!(mailbox.unread(), ["absent"]);
    mailbox.mute(&["apply"]);
    assert!(mailbox.unread().is_empty());
}

#[test]
fn a_second_copy_of_a_message_changes_nothing() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &[]);
    mailbox.deliver_bytes("copy", message("a", &[]).as_bytes());
    mailbox.index();
    mailbox.mute(&["add", "a@test"]);
    mailbox.deliver_bytes("late-copy", message("a", &[]).as_bytes());
    mailbox.index();
    mailbox.mute(&["apply"]);
    assert!(mailbox.unread().is_empty());
    let files = mailbox.notmuch(["search", "--output=files", "id:a@test"]);
    assert_eq!(files.lines().count(), 3);
    assert_eq!(mailbox.mute(&["list"]).lines().count(), 1);
}

#[test]
fn the_loss_of_the_message_that_was_muted_first_unmutes_nothing() {
    let mailbox = Mailbox::new();
    mailbox.receive("a", &[]);
    mailbox.mute(&["add", "a@test"]);
    mailbox.receive("b", &["a"]);
    mailbox.mute(&["apply"]);
    let file = mailbox.notmuch(["search", "--output=files", "id:a@test"]);
    fs::remove_file(file.trim_end()).unwrap();
    mailbox.receive("c", &["a", "b"]);
    assert_eq!(mailbox.ids("*"), ["b", "c"]);
    mailbox.mute(&["apply"]);
    assert!(mailbox.unread().is_empty());
}

#[test]
fn messages_that_searches_hide_count_as_any_other() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &[]);
    mailbox.receive("b", &["a"]);
    mailbox.notmuch(["tag", "+deleted", "--", "*"]);
    mailbox.mute(&["add", "a@test"]);
    assert!(mailbox.unread().is_empty());
    mailbox.receive("c", &["a"]);
    mailbox.notmuch(["tag", "+spam", "--", "id:c@test"]);
    mailbox.mute(&["apply"]);
    assert!(mailbox.unread().is_empty());
    assert!(mailbox.mute(&["list"]).contains("    3 "));
}

#[test]
fn the_state_travels_with_a_dump() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &[]);
    mailbox.receive("b", &[]);
    mailbox.mute(&["add", "a@test"]);
    let dump = mailbox.home().join("dump");
    mailbox.notmuch(["dump", "--output", dump.to_str().unwrap()]);
    fs::remove_dir_all(mailbox.maildir().join(".notmuch")).unwrap();
    mailbox.receive("c", &["a"]);
    mailbox.notmuch(["restore", "--input", dump.to_str().unwrap()]);
    mailbox.mute(&["apply"]);
    assert_eq!(mailbox.unread(), ["b"]);
}

#[test]
fn several_threads_are_muted_at_once_or_none() {
    let mailbox = Mailbox::new();
    for id in ["a", "b", "c"] {
        mailbox.deliver(id, &[]);
    }
    mailbox.index();
    let before = mailbox.dump();
    let output = mailbox.run(&["add", "a@test", "no@test", "b@test"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("database: <no@test> ("));
    assert_eq!(mailbox.dump(), before);
    mailbox.mute(&["add", "a@test", "id:b@test"]);
    assert_eq!(mailbox.unread(), ["c"]);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &[]);
    mailbox.receive("b", &["a"]);
    let before = mailbox.dump();
    let told = mailbox.mute(&["add", "--dry-run", "a@test", "b@test"]);
    assert_eq!(told, "would tag 2 messages and mark 2 messages read\n");
    assert_eq!(mailbox.dump(), before);
    mailbox.mute(&["add", "a@test"]);
    mailbox.receive("c", &["a"]);
    let before = mailbox.dump();
    assert_eq!(
        mailbox.mute(&["apply", "--dry-run"]),
        "would tag 1 message and mark 1 message read\n"
    );
    assert_eq!(
        mailbox.mute(&["remove", "--dry-run", "c@test"]),
        "would take the tag muted from 2 messages\n"
    );
    assert_eq!(mailbox.dump(), before);
}

#[test]
fn any_name_of_a_tag_works_and_is_a_state_of_its_own() {
    let mailbox = Mailbox::new();
    mailbox.deliver("a", &[]);
    mailbox.receive("b", &[]);
    for tag in ["quiet", "not now", "a\"b} or tag:inbox", "+%20", "ü"] {
        mailbox.notmuch(["tag", "+unread", "--", "*"]);
        mailbox.mute(&["add", "--tag", tag, "a@test"]);
        assert_eq!(mailbox.unread(), ["b"], "{tag}");
        mailbox.notmuch(["tag", "+unread", "--", "*"]);
        mailbox.mute(&["--tag", tag, "apply"]);
        assert_eq!(mailbox.unread(), ["b"], "{tag}");
        assert_eq!(mailbox.mute(&["list", "--tag", tag]).lines().count(), 1, "{tag}");
        assert!(mailbox.mute(&["list"]).is_empty());
        mailbox.mute(&["remove", "--tag", tag, "a@test"]);
        assert!(mailbox.mute(&["list", "--tag", tag]).is_empty());
    }
}

#[test]
fn the_list_shows_threads_and_commands_no_terminal() {
    let mailbox = Mailbox::new();
    let raw = message("a", &[]).replace("Subject: a", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_=1B]0;owned=07?=");
    mailbox.deliver_bytes("a", raw.as_bytes());
    // notmuch indexes in the order of inodes, and of equally old messages the first one indexed gives the subject.
    mailbox.index();
    mailbox.receive("b", &["a"]);
    assert!(mailbox.mute(&["list"]).is_empty());
    mailbox.mute(&["add", "b@test"]);
    let list = mailbox.mute(&["list"]);
    assert!(
        list.starts_with("thread:0") && list.contains(" 2026-01-01     2 Grüße "),
        "{list}"
    );
    assert!(!list.trim_end().chars().any(char::is_control), "{list:?}");
}

#[test]
fn another_database_is_used_when_named() {
    let (here, there) = (Mailbox::new(), Mailbox::new());
    here.receive("a", &[]);
    there.receive("a", &[]);
    here.mute(&["--database", there.maildir().to_str().unwrap(), "add", "a@test"]);
    assert_eq!(here.unread(), ["a"]);
    assert!(there.unread().is_empty());
}
