//! The id that mute-thread finds in a message is the id under which notmuch keeps it.

use std::io::Write;
use std::process::Stdio;

use mute_thread::header;
use mute_thread::message_id::MessageId;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::mailbox::Mailbox;

/// Headers as they come in real mail, and worse.
const HEADERS: &[&[u8]] = &[
    b"Message-ID: <1@b> <c@d>",
    b"Message-Id:\n <2@b>",
    b"Message-ID: (by <x@y> (nested \\) )) junk <3@b>",
    b"Message-ID: <4 @\tb>",
    b"Message-ID: <5@b",
    b"Message-ID: 6@b ",
    b"Message-ID: <>",
    b"Message-ID: =?us-ascii?Q?=3C8=40b=3E?=",
    b"Message-ID: <9\xc3\xa4@b>",
    b"Message-ID: <10\xe4@b>",
    b"Message-ID: <11@b>\nMessage-ID: <second@b>",
    b"Message-ID : <12@b>",
    b"Message-ID: <=?utf-8?q?13?=@b>",
    b"Message-ID: =?utf-8?q?<14@?= =?utf-8?q?b>?=",
    b"Message-ID: <15\"x@b>",
    b"Message-ID: <16\xe2\x80\x9cx\xe2\x80\x9d@b>",
    b"Message-ID: <(c) 17@b>",
    b"Message-ID: 18 x  y",
    b"Message-ID: <19@\n \n b>",
    b"Message-ID: (a <b",
    b"Message-ID: <\"21 x\"@b>",
    b"MESSAGE-ID:<22}@b>",
    b"Message-ID: =?utf-8?b?PDIzQGI+?=",
    b"Message-ID: =?utf-8?q?<24@b_c>?=",
    b"Message-ID: <\xe425@b> \xc3\xa4",
    b"Message-ID: <26\xa0@\xc3\xa4b>",
    b"Message-ID: \n <27\n @b\n >",
    b"Message-ID: <28@b>junk>",
    b"Resent-Message-ID: <no@b>\nMessage-ID: <29@b>",
    b"Subject: folded\n Message-ID: <no@b>\nMessage-ID: <30@b>",
];

/// Indexes all, and asks notmuch whether each is where we look for it.
fn assert_found(headers: &[Vec<u8>], line_end: &[u8]) -> usize {
    let mailbox = Mailbox::new();
    let mut queries = Vec::new();
    for (number, header) in headers.iter().enumerate() {
        let recipient = format!("number{number}");
        let to = format!("To: {recipient}@test");
        let mut message = Vec::new();
        for field in [&b"From: a@test"[..], header, to.as_bytes(), b"", b"body"] {
            for line in field.split(|&byte| byte == b'\n') {
                message.extend_from_slice(line);
                message.extend_from_slice(line_end);
            }
        }
        mailbox.deliver_bytes(&recipient, &message);
        let value = header::message_id(&mut &*message).unwrap();
        let id = value.and_then(|value| MessageId::from_header(&value).ok());
        queries.extend(id.map(|id| format!("{} and to:{recipient}", id.query())));
    }
    mailbox.index();
    let mut child = mailbox.command("notmuch");
    let child = child
        .args(["count", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = queries.join("\n") + "\n";
    let writer = std::thread::spawn(move || pipe.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let counts = String::from_utf8(output.stdout).unwrap();
    assert_eq!(counts.lines().count(), queries.len());
    for (query, count) in queries.iter().zip(counts.lines()) {
        assert_eq!(
            count,
            "1",
            "{query}: {}",
            mailbox.notmuch(["search", "--output=messages", query.rsplit(' ').next().unwrap()])
        );
    }
    queries.len()
}

#[test]
fn headers_of_real_mail_lead_to_their_message() {
    let mut headers: Vec<_> = HEADERS.iter().map(|header| header.to_vec()).collect();
    // notmuch keeps the digest of an id that is too long for its database.
    headers.extend(
        (185..195)
            .chain([900])
            .map(|length| format!("Message-ID: <{}>", "x".repeat(length)).into_bytes()),
    );
    for line_end in [&b"\n"[..], b"\r\n"] {
        assert_eq!(assert_found(&headers, line_end), headers.len());
    }
}

#[test]
fn generated_headers_lead_to_their_message() {
    // Every number occurs once, so that no two messages have the same id.
    let piece = prop_oneof![
        "[!-~]{1,6}",
        Just(" ".to_owned()),
        Just("\n ".to_owned()),
        Just("\"".to_owned()),
        Just("(c)".to_owned()),
        Just("ä".to_owned()),
    ];
    let header = (piece.clone(), proptest::collection::vec(piece, 0..6));
    let mut runner = TestRunner::deterministic();
    let headers: Vec<_> = (0..400)
        .map(|number| {
            let (before, after) = header.new_tree(&mut runner).unwrap().current();
            let before: String = before.chars().filter(|c| !"<(".contains(*c)).collect();
            format!("Message-ID:{before}<n{number}.{}@test>", after.concat()).into_bytes()
        })
        .collect();
    assert!(assert_found(&headers, b"\n") > 300);
}
