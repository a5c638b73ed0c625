//! Logs as `innkeeper share --log-errors` writes them, and logs as a guest with write access can forge them.

mod failure;

use failure::failure;
use proptest::prelude::*;
use why::Certainty;
use why::host_log::HostLog;
use why::ptrace::Failure;
use why::request::Refused;

const EACCES: i32 = 13;
const THREAD: i32 = 140;
const TEXT: &str = r#"2026-11-25T00:51:04.664934Z RENAME2 unique=8 uid=0 gid=0 pid=140 "/a \"b\\" to "/c": EACCES: renameat2(parent, "a", new parent, "c", 0) = EXDEV"#;
const JSON: &str = r#"{"version":1,"time":"2026-11-25T00:51:11.130227Z","operation":"RENAME2","unique":8,"node":1,"path":"/a \\\"b\\\\","to":"/c","uid":0,"gid":0,"pid":140,"errno":"EACCES","call":"renameat2(parent, \"a\", new parent, \"c\", 0) = EXDEV","rule":null}"#;

fn line(operation: &str, unique: u64, pid: u32, path: &str, cause: &str) -> String {
    format!(
        "2026-11-25T00:51:04.664934Z {operation} unique={unique} uid=0 gid=0 pid={pid} \"{path}\": EACCES: {cause}\n"
    )
}

fn failed_open(argument: &str) -> Failure {
    Failure {
        arguments: vec!["AT_FDCWD".to_owned(), format!("\"{argument}\"")],
        ..failure(THREAD, 257, "openat", EACCES)
    }
}

fn refused(operation: &str, unique: Option<u64>) -> Refused {
    let operation = operation.to_owned();
    Refused {
        operation,
        unique,
        lost: false,
    }
}

/// The cause that is found in a log, and whether it is certain.
fn cause(log: &str, argument: &str, refused: Option<&Refused>) -> Option<(String, Certainty)> {
    let log = HostLog::parse(log);
    let (line, certainty) = log.find(&failed_open(argument), refused)?;
    let cause = line.call.clone().or_else(|| line.rule.clone())?;
    Some((cause, certainty))
}

fn certain(cause: &str) -> Option<(String, Certainty)> {
    Some((cause.to_owned(), Certainty::Certain))
}

fn likely(cause: &str) -> Option<(String, Certainty)> {
    Some((cause.to_owned(), Certainty::Likely))
}

#[test]
fn both_forms_say_the_same() {
    let asked = refused("RENAME2", Some(8));
    for text in [TEXT, JSON] {
        let log = HostLog::parse(text);
        let (line, certainty) = log.find(&failed_open("/x"), Some(&asked)).expect(text);
        assert_eq!(certainty, Certainty::Certain);
        assert_eq!((line.unique, line.pid, line.errno.as_str()), (8, 140, "EACCES"));
        assert_eq!(line.path.as_deref(), Some(r#"/a \"b\\"#));
        assert_eq!(
            line.call.as_deref(),
            Some(r#"renameat2(parent, "a", new parent, "c", 0) = EXDEV"#)
        );
        assert_eq!(line.rule, None);
    }
    let rule = "2026-11-25T00:51:04.6Z STATFS unique=8 uid=0 gid=0 pid=140: EACCES: refused: unknown: nodeid";
    let without = "2026-11-25T00:51:04.6Z STATFS unique=8 uid=0 gid=0 pid=140: EACCES";
    let asked = refused("STATFS", Some(8));
    assert_eq!(cause(rule, "", Some(&asked)), certain("unknown: nodeid"));
    let log = HostLog::parse(without);
    let (line, _) = log.find(&failed_open(""), Some(&asked)).unwrap();
    assert_eq!((&line.path, &line.call, &line.rule), (&None, &None, &None));
}

#[test]
fn a_number_is_of_the_last_guest_that_used_it() {
    let log = [
        line("LOOKUP", 8, 140, "/a", "earlier()"),
        line("LOOKUP", 8, 140, "/a", "last()"),
        line("OPEN", 8, 140, "/a", "other_operation()"),
        line("LOOKUP", 10, 140, "/a", "other_number()"),
        line("LOOKUP", 8, 141, "/a", "other_thread()"),
        line("LOOKUP", 8, 140, "/a", "other_errno()").replace("EACCES", "EIO"),
    ]
    .concat();
    assert_eq!(cause(&log, "/a", Some(&refused("LOOKUP", Some(8)))), certain("last()"));
    assert_eq!(cause(&log, "/a", Some(&refused("LOOKUP", Some(12)))), None);
    let other = line("LOOKUP", 8, 1, "/a", "namespace()");
    assert_eq!(
        cause(&other, "/a", Some(&refused("LOOKUP", Some(8)))),
        likely("namespace()")
    );
}

#[test]
fn without_a_number_thread_operation_and_name_have_to_do() {
    let log = [
        line("LOOKUP", 8, 140, "/dir/a", "first()"),
        line("LOOKUP", 10, 140, "/dir/a", "named()"),
        line("LOOKUP", 12, 140, "/dir/b", "unnamed()"),
        line("OPEN", 14, 140, "/dir/a", "open()"),
        line("LOOKUP", 16, 141, "/dir/a", "other_thread()"),
    ]
    .concat();
    let lookup = refused("LOOKUP", None);
    assert_eq!(cause(&log, "/mnt/dir/a/x", Some(&lookup)), likely("named()"));
    assert_eq!(cause(&log, "/mnt/link", Some(&lookup)), likely("unnamed()"));
    assert_eq!(cause(&log, "/mnt/dir/a", Some(&refused("MKDIR", None))), None);
    assert_eq!(cause(&log, "/mnt/dir/a", None), likely("open()"));
    assert_eq!(cause(&log, "/mnt/link", None), None, "anything may have failed there");
}

#[test]
fn what_is_no_line_is_left_out() {
    let asked = refused("RENAME2", Some(8));
    let found = |log: &str| cause(log, "/x", Some(&asked));
    assert!(found(TEXT).is_some() && found(JSON).is_some());
    assert_eq!(found(&JSON.replace("\"version\":1", "\"version\":2")), None);
    assert_eq!(found(&JSON.replace("= EXDEV", "\\u001b[2J")), None, "moves the cursor");
    assert_eq!(found(&TEXT.replace("= EXDEV", "\u{202e}")), None, "turns the text");
    assert_eq!(found(&TEXT.replace("EXDEV", &"x".repeat(9000))), None, "too long");
    assert_eq!(found(&TEXT.replace("unique=8", "unique=99999999999999999999")), None);
    for cut in 0..TEXT.find("EACCES").unwrap() {
        let log = format!("{}\n{{\"version\":1,\"lost\":3}}\n", &TEXT[..cut]);
        assert_eq!(found(&log), None, "{cut}");
    }
}

proptest! {
    #[test]
    fn no_log_panics(start in 0..TEXT.len(), piece in "\\PC{0,20}|[\"\\\\: =\n{}]{0,9}", json in any::<bool>()) {
        let line = if json { JSON } else { TEXT };
        let mut log = line.to_owned();
        log.replace_range(start..line.len().min(start + piece.len() / 2), &piece);
        let log = HostLog::parse(&log);
        let _found = log.find(&failed_open("/a"), None);
    }
}
