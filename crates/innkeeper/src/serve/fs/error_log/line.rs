//! Lines of the error log. Text from a guest is escaped and cut, so that no line is longer than a pipe takes at once,
//! and none can be taken for two.

use fuse::cause::Cause;
use fuse::escape::Escaped;
use fuse::failure::Failure;
use fuse::fs::Errno;
use serde::Serialize;

use super::super::args::ErrorFormat;

/// Bytes of a path that are shown, its end rather than its start.
const PATH_MAX: usize = 1000;
/// Of the lines of the JSON form; goes up when a field is removed or means something else.
const VERSION: u32 = 1;

/// Makes lines, without their end.
#[derive(Debug)]
pub(super) struct Lines(pub(super) ErrorFormat);

/// A line in JSON.
#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    time: &'a str,
    operation: &'a str,
    unique: u64,
    node: u64,
    path: Option<String>,
    to: Option<String>,
    uid: u32,
    gid: u32,
    pid: u32,
    errno: String,
    call: Option<String>,
    rule: Option<&'a str>,
}

/// In JSON, in place of lines that were lost.
#[derive(Serialize)]
struct Gap<'a> {
    version: u32,
    time: &'a str,
    lost: u64,
}

impl Lines {
    pub(super) fn failure(&self, time: &str, failure: &Failure<'_>) -> String {
        let record = Record::new(time, failure);
        match self.0 {
            ErrorFormat::Text => record.text(),
            ErrorFormat::Json => json(&record),
        }
    }

    /// What stands for `lost` lines.
    pub(super) fn gap(&self, time: &str, lost: u64) -> String {
        let version = VERSION;
        match self.0 {
            ErrorFormat::Text => format!("{time} lost {lost} lines that could not be written"),
            ErrorFormat::Json => json(&Gap { version, time, lost }),
        }
    }
}

impl<'a> Record<'a> {
    fn new(time: &'a str, failure: &'a Failure<'_>) -> Self {
        let path = |path: Option<&[u8]>| path.map(|path| Escaped::end(path, PATH_MAX).to_string());
        let (call, rule) = match &failure.cause {
            Some(Cause::Call { call, errno }) => (Some(format!("{call} = {}", name(*errno))), None),
            Some(Cause::Rule(rule)) => (None, Some(*rule)),
            None => (None, None),
        };
        Self {
            version: VERSION,
            time,
            operation: &failure.operation,
            unique: failure.unique,
            node: failure.node.0,
            path: path(failure.path),
            to: path(failure.to),
            uid: failure.uid,
            gid: failure.gid,
            pid: failure.pid,
            errno: name(failure.errno),
            call,
            rule,
        }
    }

    fn text(&self) -> String {
        let Self {
            time,
            operation,
            unique,
            uid,
            gid,
            pid,
            errno,
            ..
        } = self;
        let mut line = format!("{time} {operation} unique={unique} uid={uid} gid={gid} pid={pid}");
        if let Some(path) = &self.path {
            line.push_str(&format!(" \"{path}\""));
        }
        if let Some(to) = &self.to {
            line.push_str(&format!(" to \"{to}\""));
        }
        line.push_str(&format!(": {errno}"));
        match (&self.call, self.rule) {
            (Some(call), _) => line.push_str(&format!(": {call}")),
            (None, Some(rule)) => line.push_str(&format!(": refused: {rule}")),
            (None, None) => {}
        }
        line
    }
}

fn name(Errno(number): Errno) -> String {
    why::errno_name(number).map_or_else(|| number.to_string(), Into::into)
}

fn json(record: &impl Serialize) -> String {
    // Nothing in a record can fail: no maps, no numbers that JSON lacks.
    serde_json::to_string(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fuse::fs::NodeId;
    use fuse::wire::Opcode;
    use serde_json::{Value, json};
    use why::host_log::HostLog;

    use super::*;

    /// Bytes of a line at most, without its end: fewer than a pipe takes at once (PIPE_BUF), whole or not at all.
    const LONGEST: usize = 4000;
    const TIME: &str = "2026-01-02T03:04:05.000006Z";

    fn failure<'a>(path: &'a [u8], to: Option<&'a [u8]>, cause: Option<Cause>) -> Failure<'a> {
        Failure {
            operation: "RENAME2".into(),
            unique: 12,
            node: NodeId(7),
            path: Some(path),
            to,
            uid: 1000,
            gid: 100,
            pid: 5,
            errno: Errno::ENFILE,
            cause,
        }
    }

    fn call(call: &str, errno: Errno) -> Option<Cause> {
        let call = call.into();
        Some(Cause::Call { call, errno })
    }

    #[test]
    fn a_line_of_text_says_who_asked_for_what_and_why_not() {
        let lines = Lines(ErrorFormat::Text);
        let asked = "2026-01-02T03:04:05.000006Z RENAME2 unique=12 uid=1000 gid=100 pid=5";
        assert_eq!(
            lines.failure(TIME, &failure(b"/a", Some(b"/b"), call("renameat2(..)", Errno::EMFILE))),
            format!(r#"{asked} "/a" to "/b": ENFILE: renameat2(..) = EMFILE"#)
        );
        assert_eq!(
            lines.failure(TIME, &failure(b"?", None, Some(Cause::Rule("unknown nodeid")))),
            format!(r#"{asked} "?": ENFILE: refused: unknown nodeid"#)
        );
        assert_eq!(
            lines.failure(TIME, &failure(b"/", None, None)),
            format!(r#"{asked} "/": ENFILE"#)
        );
        assert_eq!(
            lines.gap(TIME, 3),
            format!("{TIME} lost 3 lines that could not be written")
        );
    }

    #[test]
    fn a_line_of_json_has_all_fields_and_its_version() {
        let lines = Lines(ErrorFormat::Json);
        let read = |line: String| serde_json::from_str::<Value>(&line).unwrap();
        assert_eq!(
            read(lines.failure(TIME, &failure(b"/a", Some(b"/b"), call("renameat2(..)", Errno::EMFILE)))),
            json!({
                "version": 1, "time": TIME, "operation": "RENAME2", "unique": 12, "node": 7, "path": "/a", "to": "/b",
                "uid": 1000, "gid": 100, "pid": 5, "errno": "ENFILE", "call": "renameat2(..) = EMFILE", "rule": null
            })
        );
        let refused = read(lines.failure(TIME, &failure(b"/a", None, Some(Cause::Rule("unknown nodeid")))));
        assert_eq!(
            (&refused["rule"], &refused["call"]),
            (&json!("unknown nodeid"), &Value::Null)
        );
        assert_eq!(
            read(lines.gap(TIME, 3)),
            json!({ "version": 1, "time": TIME, "lost": 3 })
        );
    }

    #[test]
    fn what_is_written_is_understood_by_why() {
        for opcode in Opcode::ALL {
            let name = opcode.name();
            assert_eq!(why::fuse_operation_name(*opcode as u32), Some(name.as_str()));
        }
        let refused = why::request::Refused {
            operation: "RENAME2".to_owned(),
            unique: Some(12),
            lost: false,
        };
        let failed = why::ptrace::Failure {
            thread: 5,
            program: None,
            number: 264,
            architecture: why::ptrace::AUDIT_X86_64,
            call: "rename".to_owned(),
            arguments: Vec::new(),
            outcome: why::ptrace::Outcome::Errno(Errno::ENFILE.0),
            filtered: false,
            inferred: false,
            dropped_before: 0,
            searching: false,
            context: why::context::Context::default(),
            log: Vec::new(),
        };
        let written = "renameat2(\"a: \\\"b\", 0)";
        for cause in [call(written, Errno::EMFILE), Some(Cause::Rule("unknown: nodeid")), None] {
            for format in [ErrorFormat::Text, ErrorFormat::Json] {
                let path = "/dir/\"a\\\n\u{202e}: \" to \"".as_bytes();
                let line = Lines(format).failure(TIME, &failure(path, Some(path), cause.clone()));
                let log = HostLog::parse(&line);
                let (line, _) = log.find(&failed, Some(&refused)).unwrap();
                assert_eq!(line.path, Some(Escaped::end(path, PATH_MAX).to_string()));
                let expected = match &cause {
                    Some(Cause::Call { .. }) => (Some(format!("{written} = EMFILE")), None),
                    Some(Cause::Rule(rule)) => (None, Some((*rule).to_owned())),
                    None => (None, None),
                };
                assert_eq!((line.call.clone(), line.rule.clone()), expected);
            }
        }
    }

    #[test]
    fn no_name_makes_two_lines_or_a_long_one() {
        for byte in [b'\n', b'\\', b'"', 0xff, b'a'] {
            let path = vec![byte; 200_000];
            // As long as the file system's calls get: two names, each cut at 400 bytes of JSON.
            let quoted = Escaped::start(&path, 400).to_string();
            let cause = call(
                &format!("renameat2(parent, \"{quoted}\", new parent, \"{quoted}\", 0)"),
                Errno::EIO,
            );
            for format in [ErrorFormat::Text, ErrorFormat::Json] {
                let mut failure = failure(&path, Some(&path), cause.clone());
                (failure.unique, failure.uid, failure.gid, failure.pid) = (u64::MAX, u32::MAX, u32::MAX, u32::MAX);
                failure.node = NodeId(u64::MAX);
                let line = Lines(format).failure(TIME, &failure);
                assert!(!line.contains('\n') && line.len() <= LONGEST, "{} bytes", line.len());
            }
        }
    }
}
